/**
 * What the backend answers. The same fields as lepton_jupyter/formats/{views,schedule,alerts}.py;
 * a field that has its default is absent on the wire.
 */

export const RUN_MIME = 'application/vnd.lepton-jupyter.run.v1+json';

export const ENDED: readonly string[] = ['completed', 'failed', 'stopped', 'lost'];

export interface IFailure {
  message: string;
  hint?: string;
  detail?: string;
}

export interface IProgress {
  done?: number;
  total?: number;
  unit?: string;
}

export interface IRun {
  run_id: string;
  kind: string;
  title: string;
  state: string;
  created_at: number;
  started_at?: number;
  ended_at?: number;
  seq?: number;
  metrics?: Record<string, number>;
  notes?: Record<string, unknown>;
  progress?: IProgress;
  /** Newest value of how the work and the machine do: rows_per_s, cpu_cores, rss_bytes … */
  telemetry?: Record<string, number>;
  model?: string;
  version?: number;
  dataset?: string;
  command?: string;
  error?: IFailure;
  result?: Record<string, unknown>;
  needs?: string;
  checks?: Record<string, number | null>;
  endpoint?: string;
  schedule?: string;
  parent?: string;
}

export type Curve = Record<string, [number, number][]>;

/** What a cell's output holds under RUN_MIME, and what `runs/ID/history` answers with `view` for `run`. */
export interface ISnapshot {
  run: IRun;
  curve?: Curve;
}

export interface IVersion {
  model: string;
  run_id: string;
  number: number | null;
  is_deployable: boolean;
  created_at: number;
  why_not?: string;
  task?: string;
  framework?: string;
  dataset?: string;
  aliases?: string[];
  metrics?: Record<string, number>;
  verdict?: string;
  remark?: string;
}

export interface IEndpoint {
  name: string;
  state: string;
  version: string;
  model: string;
  url: string;
  created_at: number;
  follows?: string;
  is_held?: boolean;
  n_restarts?: number;
  replicas?: number;
  n_ready?: number;
  error?: IFailure;
  warning?: string;
  beside?: IBeside;
}

export interface IBeside {
  kind: string;
  version: string;
  share?: number;
  n_requests?: number;
  verdict?: string;
}

export interface IFiring {
  due_at: number;
  at: number;
  state: string;
  run_id?: string;
  run_state?: string;
  verdict?: string;
  n_missed?: number;
  why?: string;
}

export interface ISchedule {
  name: string;
  kind: string;
  subject: string;
  every: string;
  tz: string;
  state: string;
  next_due_at?: number;
  last?: IFiring;
  firings?: IFiring[];
  n_fired?: number;
  n_missed?: number;
  alerts?: string[];
  n_alerts?: number;
  notebook?: string;
  command?: string;
  is_source_changed?: boolean;
  error?: string;
}

export interface IDelivery {
  channel: string;
  title: string;
  state: string;
  attempts?: number;
  last_error?: string;
}

export interface IAlert {
  id: number;
  schedule: string;
  subject: string;
  rule: string;
  state: string;
  since: number;
  changed_at: number;
  value?: number;
  run_id?: string;
  text?: string;
  acked_by?: string;
  acked_why?: string;
  silenced_until?: number;
  silenced_by?: string;
  deliveries?: IDelivery[];
}

export function hasEnded(run: IRun): boolean {
  return ENDED.includes(run.state);
}

/** `TumorNet@3` of a run that made one, else nothing. */
export function versionOf(run: IRun): string {
  return run.model && run.version !== undefined && run.version !== null
    ? `${run.model}@${run.version}`
    : '';
}

/** What to type for a version: `TumorNet@3`, or its run's id while the registry gave no number. */
export function refOf(version: IVersion): string {
  return version.number === null ? version.run_id : `${version.model}@${version.number}`;
}
