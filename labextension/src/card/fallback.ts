import { Curve, IRun, versionOf } from '../views';
import { draw, HEIGHT, WIDTH } from './curve';
import { span } from '../words';
import { checksOf, factsOf, found, metricsOf, steps, times } from './facts';

/**
 * The card without us: text, and HTML without script or style sheet. It is saved beside the snapshot,
 * for whoever reads the notebook where this extension is not.
 */
export function fallback(run: IRun, curve: Curve): { 'text/plain': string; 'text/html': string } {
  const version = versionOf(run);
  const { verdict, lines } = found(run);
  const name = `${run.kind} ${run.title}`;
  const sub = [`run ${run.run_id}`, run.state, verdict, version].filter(Boolean).join(' · ');
  const facts = [
    steps(run),
    span(times(run, run.ended_at ?? 0).took ?? -1),
    pairs(metricsOf(run)),
    pairs(checksOf(run))
  ];
  const rest = [...facts, pairs(factsOf(run)), ...lines, run.error?.message, run.error?.hint];
  const texts = rest.filter((text): text is string => Boolean(text));
  const muted = 'opacity:.7';
  const html = [
    `<div><b>${escape(name)}</b> <span style="${muted}">${escape(sub)}</span></div>`,
    ...texts.map(text => `<div style="margin-top:4px">${escape(text)}</div>`),
    svg(curve)
  ];
  return {
    'text/plain': [`${name} · ${sub}`, ...texts.map(text => `  ${text}`)].join('\n'),
    'text/html':
      '<div style="border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:10px 14px;' +
      `max-width:980px;line-height:1.45">${html.join('')}</div>`
  };
}

function pairs(found: [string, string][]): string {
  return found.map(([key, value]) => `${key} ${value}`).join('   ');
}

function svg(curve: Curve): string {
  const drawing = draw(curve);
  if (!drawing) {
    return '';
  }
  const legend = drawing.lines.map(
    line => `<span style="color:${line.colour};margin-right:12px">■ ${escape(line.name)}</span>`
  );
  const lines = drawing.lines.map(
    line =>
      `<polyline fill="none" stroke="${line.colour}" stroke-width="1.8" points="${line.points}"/>`
  );
  return (
    `<div style="margin-top:8px;font-size:.85em">${legend.join('')}</div>` +
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" ` +
    `height="${HEIGHT}" style="max-width:100%">${lines.join('')}</svg>`
  );
}

function escape(text: string): string {
  return text
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/>/g, '&gt;')
    .replace(/"/g, '&quot;');
}
