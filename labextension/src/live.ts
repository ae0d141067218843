import { ISignal, Signal } from '@lumino/signaling';
import { Fold, IBoard } from './board';
import { Server } from './server';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15000;
const HIDDEN_MS = 30000; // a browser gives a server six connections for all its tabs: a hidden one lets go of its own

/**
 * The one event stream of this page. It is open while somebody has asked for it: the sidebar while it is
 * shown, a card while its run has not ended.
 */
export class Live {
  constructor(readonly server: Server) {
    document.addEventListener('visibilitychange', () => this._look());
  }

  get board(): IBoard {
    return this._fold.board;
  }

  get changed(): ISignal<unknown, IBoard> {
    return this._fold.changed;
  }

  /** Whether the board is what the backend says now. */
  get isLive(): boolean {
    return this._isLive;
  }

  get stateChanged(): ISignal<this, boolean> {
    return this._stateChanged;
  }

  /** Ask for the stream; call what is returned when it is no longer needed. */
  acquire(): () => void {
    this._wanted += 1;
    let isHeld = true;
    this._look();
    return () => {
      if (isHeld) {
        isHeld = false;
        this._wanted -= 1;
        this._look();
      }
    };
  }

  private _look(): void {
    window.clearTimeout(this._hiding);
    if (this._wanted === 0) {
      this._close();
    } else if (document.hidden && this._abort) {
      this._hiding = window.setTimeout(() => this._close(), HIDDEN_MS);
    } else if (!document.hidden && !this._abort) {
      this._abort = new AbortController();
      void this._follow(this._abort.signal);
    }
  }

  private _close(): void {
    this._abort?.abort();
    this._abort = null;
    this._say(false);
  }

  private async _follow(signal: AbortSignal): Promise<void> {
    let pause = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      try {
        for await (const event of this.server.events(signal)) {
          if (signal.aborted) {
            return;
          }
          this._fold.add(event);
          this._say(true);
          pause = FIRST_PAUSE_MS;
        }
      } catch {
        // Told by `isLive`: a server that is away for a moment is no news, and it is asked again.
      }
      if (!signal.aborted) {
        this._say(false);
        await new Promise(resolve => window.setTimeout(resolve, pause));
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
      }
    }
  }

  private _say(isLive: boolean): void {
    if (isLive !== this._isLive) {
      this._isLive = isLive;
      this._stateChanged.emit(isLive);
    }
  }

  private _wanted = 0;
  private _hiding = 0;
  private _isLive = false;
  private _abort: AbortController | null = null;
  private _fold = new Fold();
  private _stateChanged = new Signal<this, boolean>(this);
}
