import { ISignal, Signal } from '@lumino/signaling';
import { IServerEvent } from './sse';
import { IAlert, IEndpoint, IRun, ISchedule, IVersion } from './views';

/** Every view of the home, newest first, as the stream last told it. */
export interface IBoard {
  runs: IRun[];
  models: IVersion[];
  endpoints: IEndpoint[];
  schedules: ISchedule[];
  alerts: IAlert[];
  /** Whether the backend answers; while it does not, the rest is as it was last seen. */
  is_up: boolean;
}

export type Plural = Exclude<keyof IBoard, 'is_up'>;

export const EMPTY: IBoard = {
  runs: [],
  models: [],
  endpoints: [],
  schedules: [],
  alerts: [],
  is_up: false
};

type Row = { created_at?: number };

const PLURAL: Record<string, Plural> = {
  run: 'runs',
  model: 'models',
  endpoint: 'endpoints',
  schedule: 'schedules',
  alert: 'alerts'
};

const ID: Record<Plural, string> = {
  runs: 'run_id',
  models: 'run_id',
  endpoints: 'name',
  schedules: 'name',
  alerts: 'id'
};

/** Folds the stream of events into a board; each change makes a new one, so that it can be compared by identity. */
export class Fold {
  get board(): IBoard {
    return this._board;
  }

  get changed(): ISignal<this, IBoard> {
    return this._changed;
  }

  add(event: IServerEvent): void {
    const data = JSON.parse(event.data);
    if (event.event === 'board') {
      this._board = { ...EMPTY, ...data };
    } else if (event.event === 'away') {
      this._board = { ...this._board, is_up: false };
    } else if (event.event === 'gone') {
      this._without(data.kind, String(data.id));
    } else if (event.event in PLURAL) {
      this._with(PLURAL[event.event], data);
    } else {
      return;
    }
    this._changed.emit(this._board);
  }

  private _with(plural: Plural, view: Row): void {
    const rows = this._board[plural] as Row[];
    const id = idOf(plural, view);
    const at = rows.findIndex(row => idOf(plural, row) === id);
    const next = at < 0 ? [view, ...rows] : rows.map((row, index) => (index === at ? view : row));
    this._board = { ...this._board, [plural]: next };
  }

  private _without(kind: string, id: string): void {
    const plural = PLURAL[kind];
    if (plural) {
      const rows = this._board[plural] as Row[];
      this._board = { ...this._board, [plural]: rows.filter(row => idOf(plural, row) !== id) };
    }
  }

  private _board = EMPTY;
  private _changed = new Signal<this, IBoard>(this);
}

function idOf(plural: Plural, view: Row): string {
  return String((view as Record<string, unknown>)[ID[plural]]);
}
