import { JupyterFrontEnd } from '@jupyterlab/application';
import {
  Dialog,
  ICommandPalette,
  Notification,
  showDialog,
  ToolbarButton
} from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { TranslationBundle } from '@jupyterlab/translation';
import { CommandIDs, tell } from '../commands';
import { leptonIcon } from '../icon';
import { LeptonError, Server } from '../server';
import { localZone, ScheduleForm } from './form';
import { IParameter, parseParameters } from './parameters';

/** Put "Schedule…" into every notebook's toolbar, and its command into the palette. */
export function addScheduleButton(
  app: JupyterFrontEnd,
  notebooks: INotebookTracker,
  server: Server,
  trans: TranslationBundle,
  palette: ICommandPalette | null
): void {
  const label = trans.__('Schedule…');
  app.commands.addCommand(CommandIDs.scheduleNotebook, {
    label,
    caption: trans.__('Execute this notebook by the clock'),
    describedBy: { args: { type: 'object', properties: {} } },
    isEnabled: () => notebooks.currentWidget !== null,
    execute: () => notebooks.currentWidget && schedule(notebooks.currentWidget, server, trans)
  });
  palette?.addItem({ command: CommandIDs.scheduleNotebook, category: trans.__('Lepton') });
  notebooks.widgetAdded.connect((_, panel) => {
    const button = new ToolbarButton({
      icon: leptonIcon,
      label,
      tooltip: trans.__('Execute this notebook by the clock'),
      onClick: () => void schedule(panel, server, trans)
    });
    button.addClass('jp-Lepton-scheduleButton');
    panel.toolbar.insertAfter('cellType', 'lepton-schedule', button);
  });
}

/** Ask until the server takes it, or the person gives up. */
async function schedule(
  panel: NotebookPanel,
  server: Server,
  trans: TranslationBundle
): Promise<void> {
  const { context } = panel;
  const parameters = parametersOf(panel);
  const stem = PathExt.basename(context.path, '.ipynb');
  let values = {
    name: stem.replace(/[^\w.-]+/g, '_').replace(/^[^A-Za-z]+/, '') || 'notebook',
    every: 'daily',
    tz: localZone(),
    typed: {} as Record<string, string>
  };
  for (let trouble = ''; ;) {
    const form = new ScheduleForm(trans, parameters, values, trouble);
    const answer = await showDialog({
      title: trans.__('Schedule %1', PathExt.basename(context.path)),
      body: form,
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: trans.__('Schedule') })],
      focusNodeSelector: 'input[name="every"]'
    });
    if (!answer.button.accept || !answer.value) {
      return;
    }
    try {
      if (context.model.dirty) {
        await context.save(); // what fires is the notebook on disk
      }
      const body = { notebook: context.path, ...answer.value }; // below Jupyter's folder, as the server knows
      const { text } = await server.verb('schedule', body);
      Notification.success(text, { autoClose: 6000 });
      return;
    } catch (reason) {
      if (!(reason instanceof LeptonError)) {
        tell(reason);
        return;
      }
      trouble = [reason.message, reason.hint].filter(Boolean).join(' ');
      values = form.answers;
    }
  }
}

function parametersOf(panel: NotebookPanel): IParameter[] {
  for (const cell of panel.content.model?.cells ?? []) {
    const tags = cell.getMetadata('tags');
    if (cell.type === 'code' && Array.isArray(tags) && tags.includes('parameters')) {
      return parseParameters(cell.sharedModel.getSource());
    }
  }
  return [];
}
