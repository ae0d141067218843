import { ReactWidget } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { Message } from '@lumino/messaging';
import * as React from 'react';
import { IBoard, Plural } from '../board';
import { leptonIcon } from '../icon';
import { Live } from '../live';
import { refOf } from '../views';
import { now } from '../words';
import { Alerts } from './alerts';
import { Endpoints } from './endpoints';
import { Models } from './models';
import { Here, Section } from './row';
import { Runs } from './runs';
import { Schedules } from './schedules';

export const SIDEBAR_ID = 'lepton-jupyter-sidebar';

const ORDER: Plural[] = ['runs', 'models', 'endpoints', 'schedules', 'alerts'];
const START =
  '%load_ext lepton_jupyter\n%lepton data NAME table.csv --target COLUMN\n%lepton train Net --data NAME';

/** The life of every model at a glance. It needs no kernel; it looks only while it is shown. */
export class Sidebar extends ReactWidget {
  constructor(
    private _live: Live,
    private _commands: CommandRegistry,
    private _trans: TranslationBundle
  ) {
    super();
    this.id = SIDEBAR_ID;
    this.addClass('jp-Lepton-sidebar');
    this.title.icon = leptonIcon;
    this.title.caption = _trans.__('Lepton');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', _trans.__('Lepton'));
  }

  protected onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    this._release ??= this._live.acquire();
    this._live.changed.connect(this.update, this);
    this._live.stateChanged.connect(this.update, this);
    this._clock = window.setInterval(() => this.update(), 1000);
    this.update();
  }

  protected onAfterHide(msg: Message): void {
    super.onAfterHide(msg);
    this._release?.();
    this._release = null;
    this._live.changed.disconnect(this.update, this);
    this._live.stateChanged.disconnect(this.update, this);
    window.clearInterval(this._clock);
  }

  protected render(): JSX.Element {
    const here = { commands: this._commands, trans: this._trans, now: now() };
    const { board, isLive } = this._live;
    const isUp = isLive && board.is_up;
    return (
      <Here.Provider value={here}>
        <header>
          <h2>{this._trans.__('Lepton')}</h2>
          <span className={`jp-Lepton-live${isUp ? ' jp-mod-live' : ''}`} role="status">
            {isUp
              ? this._trans.__('live')
              : isLive
                ? this._trans.__('idle')
                : this._trans.__('connecting …')}
          </span>
        </header>
        <Board board={board} trans={this._trans} />
      </Here.Provider>
    );
  }

  private _release: (() => void) | null = null;
  private _clock = 0;
}

/** Five sections; the first that is empty says what to type next, with the names that are there. */
function Board(props: { board: IBoard; trans: TranslationBundle }): JSX.Element {
  const { board, trans } = props;
  const model = board.models[0];
  const endpoint = board.endpoints[0]?.name ?? 'NAME';
  const standing = board.alerts.filter(alert => alert.state !== 'resolved').length;
  const first = ORDER.find(part => !board[part].length);
  const next = (part: Plural, hint: string) => (part === first ? hint : undefined);
  return (
    <>
      <Section
        title={trans.__('Runs')}
        count={board.runs.length}
        says={trans.__('Nothing has run yet. In a notebook, bring a table and train on it:')}
        hint={next('runs', START)}
      >
        <Runs runs={board.runs} />
      </Section>
      <Section
        title={trans.__('Models')}
        count={board.models.length}
        says={trans.__('A training run leaves its version here.')}
        hint={next('models', '%lepton train Net --data NAME')}
      >
        <Models models={board.models} />
      </Section>
      <Section
        title={trans.__('Endpoints')}
        count={board.endpoints.length}
        says={trans.__('A version that is served over HTTP.')}
        hint={next('endpoints', `%lepton deploy ${model ? refOf(model) : 'Net'} --as NAME`)}
      >
        <Endpoints endpoints={board.endpoints} />
      </Section>
      <Section
        title={trans.__('Schedules')}
        count={board.schedules.length}
        says={trans.__('A report by the clock; or any notebook, from its toolbar.')}
        hint={next('schedules', `%lepton monitor ${endpoint} --every 1h`)}
      >
        <Schedules schedules={board.schedules} />
      </Section>
      <Section
        title={trans.__('Alerts')}
        count={standing || board.alerts.length}
        says={trans.__('All is quiet.')}
        hint={next('alerts', `%lepton monitor ${endpoint} --every 1h --alert "psi > 0.2"`)}
      >
        <Alerts alerts={board.alerts} />
      </Section>
    </>
  );
}
