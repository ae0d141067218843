import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { saverOf } from './card/save';
import { RunRenderer } from './card/renderer';
import { addCommands, CommandIDs } from './commands';
import { Live } from './live';
import { addScheduleButton } from './schedule/button';
import { Server } from './server';
import { Sidebar, SIDEBAR_ID } from './sidebar/sidebar';
import { StatusItem } from './status';
import { RUN_MIME } from './views';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'lepton-jupyter:plugin',
  description: 'Runs, models, endpoints, schedules and alerts of lepton_jupyter.',
  autoStart: true,
  requires: [IRenderMimeRegistry],
  optional: [ITranslator, ICommandPalette, ILayoutRestorer, INotebookTracker, IStatusBar],
  activate: (
    app: JupyterFrontEnd,
    rendermime: IRenderMimeRegistry,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    notebooks: INotebookTracker | null,
    statusBar: IStatusBar | null
  ) => {
    const trans = (translator ?? nullTranslator).load('lepton_jupyter');
    const server = new Server(app.serviceManager.serverSettings);
    const live = new Live(server);
    const { commands } = app;
    addCommands(app, server, trans);

    const host = { live, commands, trans, onStarted: saverOf(notebooks) };
    rendermime.addFactory(
      { safe: true, mimeTypes: [RUN_MIME], createRenderer: () => new RunRenderer(host) },
      5 // before text/html: this factory is the only one of its type
    );

    const sidebar = new Sidebar(live, commands, trans);
    app.shell.add(sidebar, 'left', { rank: 850, type: 'Lepton' });
    restorer?.add(sidebar, SIDEBAR_ID);
    commands.addCommand(CommandIDs.openSidebar, {
      label: trans.__('Show Lepton'),
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => app.shell.activateById(SIDEBAR_ID)
    });
    palette?.addItem({ command: CommandIDs.openSidebar, category: trans.__('Lepton') });

    statusBar?.registerStatusItem('lepton-jupyter:status', {
      item: new StatusItem(live, commands, trans),
      align: 'left',
      rank: 30
    });
    if (notebooks) {
      addScheduleButton(app, notebooks, server, trans, palette);
    }
  }
};

export default plugin;
