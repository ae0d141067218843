import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { tone } from '../colour';
import { Curve, hasEnded, IRun, versionOf } from '../views';
import { clock, span } from '../words';
import { CurveView, draw } from './curve';
import {
  awaited,
  checksOf,
  factsOf,
  found,
  machineOf,
  metricsOf,
  Pair,
  share,
  steps,
  times
} from './facts';

export interface ICardProps {
  run: IRun;
  curve: Curve;
  now: number;
  isLive: boolean;
  /** What stands in the way of following it; empty where nothing does. */
  remark: string;
  trans: TranslationBundle;
  onStop: () => void;
  onOpen: () => void;
}

export function Card(props: ICardProps): JSX.Element {
  const { run, trans } = props;
  const done = share(run);
  const { took, left } = times(run, props.now);
  const { verdict, lines } = found(run);
  const drawing = draw(props.curve);
  const told = drawing?.lines.map(line => line.name) ?? [];
  const subtitle = [
    `run ${run.run_id}`,
    versionOf(run),
    run.schedule,
    clock(run.created_at, props.now)
  ];
  const pace = [
    steps(run),
    took !== null && (hasEnded(run) ? trans.__('took %1', span(took)) : span(took)),
    left !== null && trans.__('%1 left', span(left)),
    awaited(run) && trans.__('waiting for %1', awaited(run))
  ];
  return (
    <article className={`jp-LeptonCard ${tone(run.state)}`} aria-label={`${run.kind} ${run.title}`}>
      <header>
        <div className="jp-LeptonCard-name">
          <strong>{`${run.kind} ${run.title}`}</strong>
          <Pill word={run.state} isState />
          {verdict && <Pill word={verdict} />}
          <div className="jp-LeptonCard-muted">{subtitle.filter(Boolean).join(' · ')}</div>
        </div>
        <div className="jp-LeptonCard-buttons">
          {!hasEnded(run) && (
            <button className="jp-Lepton-button" onClick={props.onStop}>
              {trans.__('Stop')}
            </button>
          )}
          <button className="jp-Lepton-button" onClick={props.onOpen}>
            {trans.__('Open notebook')}
          </button>
        </div>
      </header>
      {!hasEnded(run) && <Bar share={done} label={trans.__('Progress of run %1', run.run_id)} />}
      <div className="jp-LeptonCard-muted">{pace.filter(Boolean).join(' · ')}</div>
      {lines.map(line => (
        <p key={line}>{line}</p>
      ))}
      {run.error && (
        <p className={tone(run.state)}>
          {run.error.message} {run.error.hint}
        </p>
      )}
      {!hasEnded(run) && Boolean(run.notes?.gpu_held) && <p>{String(run.notes?.gpu_held)}</p>}
      <Facts pairs={machineOf(run)} />
      <Facts pairs={metricsOf(run, told)} isStrong />
      <CurveView
        drawing={drawing}
        unit={run.progress?.unit?.replace(/s$/, '') ?? trans.__('step')}
      />
      <Facts pairs={checksOf(run)} isStrong />
      <Facts pairs={factsOf(run)} />
      {props.remark && <p className="jp-LeptonCard-muted">{props.remark}</p>}
    </article>
  );
}

export function Pill(props: { word: string; isState?: boolean }): JSX.Element {
  return (
    <span
      className={`jp-Lepton-pill ${tone(props.word)}`}
      role={props.isState ? 'status' : undefined}
      aria-live={props.isState ? 'polite' : undefined}
    >
      {props.word}
    </span>
  );
}

/** A bar; without a share it says only that something goes on. */
export function Bar(props: { share: number | null; label: string }): JSX.Element {
  const value = props.share === null ? undefined : Math.round(100 * props.share);
  return (
    <div
      className={`jp-Lepton-bar${value === undefined ? ' jp-mod-unknown' : ''}`}
      role="progressbar"
      aria-label={props.label}
      aria-valuenow={value}
      aria-valuemin={0}
      aria-valuemax={100}
    >
      <div style={value === undefined ? undefined : { width: `${value}%` }} />
    </div>
  );
}

function Facts(props: { pairs: Pair[]; isStrong?: boolean }): JSX.Element | null {
  if (!props.pairs.length) {
    return null;
  }
  return (
    <dl className={`jp-LeptonCard-facts${props.isStrong ? ' jp-mod-strong' : ''}`}>
      {props.pairs.map(([key, value]) => (
        <div key={key}>
          <dt>{key}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
