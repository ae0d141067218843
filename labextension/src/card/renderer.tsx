import { ReactWidget } from '@jupyterlab/apputils';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { TranslationBundle } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { JSONObject } from '@lumino/coreutils';
import { Message } from '@lumino/messaging';
import * as React from 'react';
import { CommandIDs } from '../commands';
import { Live } from '../live';
import { LeptonError } from '../server';
import { Curve, hasEnded, IRun, ISnapshot, RUN_MIME } from '../views';
import { now } from '../words';
import { Card } from './card';
import { fallback } from './fallback';

const HISTORY_MS = 2000; // a curve that grows is read again at most this often

export interface IHost {
  live: Live;
  commands: CommandRegistry;
  trans: TranslationBundle;
  /** Called once with the node of a card whose run has just begun. */
  onStarted: (node: HTMLElement) => void;
}

/**
 * A run in a notebook's output. It paints what the output holds, then follows the server, not the kernel; at the
 * run's end it writes the last state back into the output, to be saved with the notebook.
 */
export class RunRenderer extends ReactWidget implements IRenderMime.IRenderer {
  constructor(private _host: IHost) {
    super();
    this.addClass('jp-LeptonRun');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const snapshot = model.data[RUN_MIME] as unknown as ISnapshot;
    if (this._run?.run_id !== snapshot.run.run_id) {
      this._unfollow();
      this._run = null;
      this._curve = {};
    }
    this._model = model;
    this._take(snapshot.run, snapshot.curve);
    if (hasEnded(snapshot.run)) {
      this._unfollow();
    } else {
      this._follow();
    }
    await this.renderPromise;
  }

  dispose(): void {
    this._unfollow();
    super.dispose();
  }

  protected onBeforeDetach(msg: Message): void {
    this._unfollow();
    super.onBeforeDetach(msg);
  }

  protected onAfterAttach(msg: Message): void {
    super.onAfterAttach(msg);
    this._follow();
  }

  protected render(): JSX.Element | null {
    const { commands, live, trans } = this._host;
    const run = this._run;
    if (!run) {
      return null;
    }
    const about = { run_id: run.run_id, title: `${run.kind} ${run.title}` };
    return (
      <Card
        run={run}
        curve={this._curve}
        now={now()}
        isLive={live.isLive}
        remark={this._remark}
        trans={trans}
        onStop={() => void commands.execute(CommandIDs.stop, { ref: `run/${run.run_id}` })}
        onOpen={() => void commands.execute(CommandIDs.openReport, about)}
      />
    );
  }

  /** Take in a state of the run, unless it is older than what is shown. */
  private _take(run: IRun, curve?: Curve): void {
    const shown = this._run;
    if (shown && (hasEnded(shown) || (run.seq ?? 0) < (shown.seq ?? 0)) && !hasEnded(run)) {
      return;
    }
    this._run = run;
    if (curve && Object.keys(curve).length) {
      this._curve = curve;
    }
    this.update();
  }

  private _follow(): void {
    if (this._release || !this._run || hasEnded(this._run) || this._remark) {
      return;
    }
    const { live, onStarted } = this._host;
    this._release = live.acquire();
    live.changed.connect(this._onBoard, this);
    this._clock = window.setInterval(() => this.update(), 1000);
    onStarted(this.node);
    void this._readHistory();
  }

  private _unfollow(): void {
    this._release?.();
    this._release = null;
    this._host.live.changed.disconnect(this._onBoard, this);
    window.clearInterval(this._clock);
    window.clearTimeout(this._reading);
    this._reading = 0;
  }

  private _onBoard(): void {
    const shown = this._run!;
    const run = this._host.live.board.runs.find(one => one.run_id === shown.run_id);
    if (run && run.seq === shown.seq && run.state === shown.state) {
      return;
    }
    if (run) {
      this._take(run);
    }
    if (run && hasEnded(run)) {
      void this._readHistory();
    } else if (!this._reading) {
      // of a run that is no longer on the board, which has the newest, this is also how its end is heard
      this._reading = window.setTimeout(() => {
        this._reading = 0;
        void this._readHistory();
      }, HISTORY_MS);
    }
  }

  private async _readHistory(): Promise<void> {
    try {
      const path = ['runs', this._run!.run_id, 'history'];
      const { view, curve } = await this._host.live.server.get<{ view: IRun; curve: Curve }>(
        ...path
      );
      if (this.isDisposed) {
        return;
      }
      this._take(view, curve);
      if (hasEnded(view)) {
        this._finish();
      }
    } catch (reason) {
      if (reason instanceof LeptonError && reason.status === 404) {
        this._remark = this._host.trans.__('Not known here: %1', reason.message);
        this._unfollow();
        this.update();
      } // else it is away for a moment: the stream comes back, and this is asked again
    }
  }

  /** Leave the last state in the output, with what other readers of the notebook show. */
  private _finish(): void {
    const run = this._run!;
    this._unfollow();
    const saved = this._model?.data[RUN_MIME] as unknown as ISnapshot | undefined;
    if (!this._model || !saved || hasEnded(saved.run)) {
      return;
    }
    const snapshot = { run, curve: this._curve } as unknown as JSONObject;
    this._model.setData({
      data: { ...this._model.data, ...fallback(run, this._curve), [RUN_MIME]: snapshot }
    });
  }

  private _model: IRenderMime.IMimeModel | null = null;
  private _run: IRun | null = null;
  private _curve: Curve = {};
  private _remark = '';
  private _release: (() => void) | null = null;
  private _clock = 0;
  private _reading = 0;
}
