import { hasEnded, IRun } from '../views';
import { figure } from '../words';

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
  'best_epoch',
  'cells',
  'git',
  'hardware',
  'packages'
];

export type Pair = [string, string];

/** The share of a run that is done, 0–1; null where that cannot be said. */
export function share(run: IRun): number | null {
  const { total } = run.progress ?? {};
  return total ? Math.min(1, reached(run) / total) : null;
}

/** How far it is; of epochs also within the one that goes on. */
function reached(run: IRun): number {
  const { done, unit } = run.progress ?? {};
  const within = unit === 'epochs' ? (run.telemetry?.epoch ?? 0) : 0;
  return Math.max(done ?? 0, within);
}

/** What it waits for before its first figure; the same as faces/objects/run.py. */
export function awaited(run: IRun): string {
  if (run.state === 'queued') {
    return run.needs ?? '';
  }
  if (run.state === 'starting') {
    return 'its kernel';
  }
  const isSilent = !Object.keys(run.metrics ?? {}).length && run.telemetry?.loss === undefined;
  if (run.state !== 'running' || run.kind !== 'train' || !isSilent) {
    return '';
  }
  return run.notes?.task === undefined ? 'the framework and its data' : 'its first batch';
}

/** How the work and the machine do while it goes on; the same as faces/objects/run.py. */
export function machineOf(run: IRun): Pair[] {
  const told = run.telemetry ?? {};
  if (hasEnded(run)) {
    return [];
  }
  const { rows_per_s, lr, grad_norm, cpu_cores, rss_bytes, gpu_share, gpu_bytes } = told;
  const memory = [gpu_bytes, told.gpu_total_bytes].map(size).filter(Boolean).join(' of ');
  const pairs: Pair[] = [
    ['rows/s', rows_per_s === undefined ? '' : Math.round(rows_per_s).toLocaleString('en')],
    ['lr', figure(lr)],
    ['grad norm', figure(grad_norm)],
    ['CPU', cpu_cores === undefined ? '' : `${cpu_cores.toFixed(1)} cores`],
    ['memory', size(rss_bytes)],
    ['GPU', gpu_share === undefined ? '' : `${Math.round(100 * gpu_share)}%`],
    ['GPU memory', memory]
  ];
  return pairs.filter(([, text]) => text !== '');
}

function size(bytes: number | undefined): string {
  if (bytes === undefined) {
    return '';
  }
  return bytes >= 2 ** 30
    ? `${(bytes / 2 ** 30).toFixed(1)} GiB`
    : `${Math.round(bytes / 2 ** 20)} MiB`;
}

/** `12 of 20 epochs`, or nothing. */
export function steps(run: IRun): string {
  const { done, total, unit } = run.progress ?? {};
  return total ? `${done ?? 0} of ${total} ${unit ?? 'steps'}` : '';
}

/** Seconds that it took, or has taken so far, and that it still takes by its pace; null where that cannot be said. */
export function times(run: IRun, now: number): { took: number | null; left: number | null } {
  if (!run.started_at) {
    return { took: null, left: null };
  }
  const took = (hasEnded(run) ? (run.ended_at ?? now) : now) - run.started_at;
  const { total } = run.progress ?? {};
  const done = reached(run);
  const isMoving = !hasEnded(run) && done && total && done < total;
  return { took, left: isMoving ? (took / done) * (total - done) : null };
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

/** Its newest metrics, less those that a drawing beside them tells already. */
export function metricsOf(run: IRun, told: string[] = []): Pair[] {
  const metrics = Object.entries(run.metrics ?? {}).filter(([name]) => !told.includes(name));
  return shown(metrics.sort(([a], [b]) => a.localeCompare(b)));
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
