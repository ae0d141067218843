import * as React from 'react';
import { Curve } from '../views';
import { drawn, figure } from '../words';

export const WIDTH = 520;
export const HEIGHT = 150;
const LEFT = 64;
const BOTTOM = 20;
const TOP = 8;

export const PALETTE = ['#3b82f6', '#f59e0b', '#16a34a', '#a855f7'];

export interface ILine {
  name: string;
  colour: string;
  points: string;
  last: number;
}

export interface IDrawing {
  lines: ILine[];
  low: number;
  high: number;
  right: number;
}

/** Place some metrics over their steps; null where none has two points. */
export function draw(curve: Curve): IDrawing | null {
  const series = drawn(curve)
    .map(([name, points]) => [name, points.filter(([, y]) => Number.isFinite(y))] as const)
    .filter(([, points]) => points.length > 1);
  if (!series.length) {
    return null;
  }
  const xs = series.flatMap(([, points]) => points.map(([x]) => x));
  const ys = series.flatMap(([, points]) => points.map(([, y]) => y));
  const [left, right, low, high] = [min(xs), max(xs), min(ys), max(ys)];
  const place = (x: number, y: number) => {
    const across = LEFT + ((x - left) / (right - left || 1)) * (WIDTH - LEFT - 6);
    const down = TOP + ((high - y) / (high - low || 1)) * (HEIGHT - BOTTOM - TOP - 4);
    return `${across.toFixed(1)},${down.toFixed(1)}`;
  };
  const lines = series.map(([name, points], at) => ({
    name,
    colour: PALETTE[at % PALETTE.length],
    points: points.map(([x, y]) => place(x, y)).join(' '),
    last: points[points.length - 1][1]
  }));
  return { lines, low, high, right };
}

const min = (values: number[]) => values.reduce((a, b) => Math.min(a, b));
const max = (values: number[]) => values.reduce((a, b) => Math.max(a, b));

export function CurveView(props: { drawing: IDrawing | null; unit: string }): JSX.Element | null {
  const { drawing } = props;
  if (!drawing) {
    return null;
  }
  const floor = HEIGHT - BOTTOM;
  const middle = (TOP + floor) / 2;
  return (
    <figure className="jp-LeptonCard-curve">
      <figcaption>
        {drawing.lines.map(line => (
          <span key={line.name}>
            <i style={{ background: line.colour }} />
            {line.name} <b>{figure(line.last)}</b>
          </span>
        ))}
      </figcaption>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        role="img"
        aria-label={drawing.lines.map(line => `${line.name} ${figure(line.last)}`).join(', ')}
      >
        {[TOP, middle, floor].map(y => (
          <line key={y} className="jp-mod-grid" x1={LEFT} x2={WIDTH} y1={y} y2={y} />
        ))}
        <text x={LEFT - 8} y={TOP + 4} textAnchor="end">
          {figure(drawing.high)}
        </text>
        <text x={LEFT - 8} y={floor} textAnchor="end">
          {figure(drawing.low)}
        </text>
        <text x={WIDTH} y={HEIGHT - 5} textAnchor="end">
          {props.unit} {figure(drawing.right)}
        </text>
        {drawing.lines.map(line => (
          <polyline key={line.name} points={line.points} stroke={line.colour} />
        ))}
      </svg>
    </figure>
  );
}
