import { ReactWidget } from '@jupyterlab/apputils';
import { TextItem } from '@jupyterlab/statusbar';
import { TranslationBundle } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import * as React from 'react';
import { CommandIDs } from './commands';
import { Live } from './live';
import { hasEnded } from './views';

/** How much runs and fires, while the stream is open; a click shows the sidebar. */
export class StatusItem extends ReactWidget {
  constructor(
    private _live: Live,
    private _commands: CommandRegistry,
    private _trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-mod-highlighted');
    this.addClass('jp-Lepton-status');
    _live.changed.connect(this.update, this);
    _live.stateChanged.connect(this.update, this);
  }

  protected render(): JSX.Element {
    const { board, isLive } = this._live;
    const running = board.runs.filter(run => !hasEnded(run)).length;
    const firing = board.alerts.filter(alert => alert.state === 'firing').length;
    const parts = [
      running > 0 && this._trans.__('%1 running', running),
      firing > 0 && this._trans.__('%1 firing', firing)
    ].filter(Boolean);
    const text = isLive && parts.length ? `Lepton: ${parts.join(', ')}` : 'Lepton';
    return (
      <TextItem
        source={text}
        title={this._trans.__('Show runs, models, endpoints, schedules and alerts')}
        onClick={() => void this._commands.execute(CommandIDs.openSidebar)}
      />
    );
  }
}
