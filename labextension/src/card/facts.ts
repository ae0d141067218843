import { hasEnded, IRun } from '../views';
import { figure, span } from '../words';

/** Facts of a run that a card shows, in this order; the same as faces/objects/run.py. */
const NOTES = [
  'task',
  'positive',
  'device',
  'threads',
  'seed',
  'loss',
  'optimizer',
  'exportable',
  'best_epoch'
];

export type Pair = [string, string];

/** The share of a run that is done, 0–1; null where that cannot be said. */
export function share(run: IRun): number | null {
  const { done, total } = run.progress ?? {};
  return total ? Math.min(1, (done ?? 0) / total) : null;
}

/** `12 of 20 epochs`, or nothing. */
export function steps(run: IRun): string {
  const { done, total, unit } = run.progress ?? {};
  return total ? `${done ?? 0} of ${total} ${unit ?? 'steps'}` : '';
}

/** How long it took, or has taken so far and still takes by its pace. */
export function times(run: IRun, now: number): { took: string; left: string } {
  if (!run.started_at) {
    return { took: '', left: '' };
  }
  const took = (hasEnded(run) ? (run.ended_at ?? now) : now) - run.started_at;
  const { done, total } = run.progress ?? {};
  const isMoving = !hasEnded(run) && done && total && done < total;
  return { took: span(took), left: isMoving ? span((took / done) * (total - done)) : '' };
}

export function factsOf(run: IRun): Pair[] {
  const notes = run.notes ?? {};
  const pairs: [string, unknown][] = [
    ['data', run.dataset],
    ['endpoint', run.endpoint],
    ...NOTES.map(key => [key.replace('_', ' '), notes[key]] as [string, unknown])
  ];
  return shown(pairs);
}

export function metricsOf(run: IRun): Pair[] {
  return shown(Object.entries(run.metrics ?? {}).sort(([a], [b]) => a.localeCompare(b)));
}

export function checksOf(run: IRun): Pair[] {
  return Object.entries(run.checks ?? {}).map(([name, value]) => [
    name,
    value === null ? '–' : figure(value)
  ]);
}

/** What the run found, in words: a report's headline and sentences, an evaluation's verdict. */
export function found(run: IRun): { verdict: string; lines: string[] } {
  const { verdict, headline, sentences, decision, reason } = (run.result ?? {}) as Record<
    string,
    unknown
  >;
  const lines = [headline, reason, ...(Array.isArray(sentences) ? sentences : [])];
  return {
    verdict: String(verdict ?? decision ?? ''),
    lines: lines.filter((line): line is string => typeof line === 'string' && line !== '')
  };
}

function shown(pairs: [string, unknown][]): Pair[] {
  return pairs.map(([key, value]): Pair => [key, figure(value)]).filter(([, text]) => text !== '');
}
