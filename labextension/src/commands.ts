import { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard, Dialog, InputDialog, Notification, showDialog } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { openReport } from './report';
import { LeptonError, Server } from './server';

export namespace CommandIDs {
  export const openSidebar = 'lepton-jupyter:open-sidebar';
  export const openReport = 'lepton-jupyter:open-report';
  export const stop = 'lepton-jupyter:stop';
  export const remove = 'lepton-jupyter:delete';
  export const promote = 'lepton-jupyter:promote';
  export const deploy = 'lepton-jupyter:deploy';
  export const rollback = 'lepton-jupyter:rollback';
  export const monitor = 'lepton-jupyter:monitor';
  export const retrain = 'lepton-jupyter:retrain';
  export const fire = 'lepton-jupyter:fire';
  export const acknowledge = 'lepton-jupyter:acknowledge';
  export const silence = 'lepton-jupyter:silence';
  export const copy = 'lepton-jupyter:copy';
  export const scheduleNotebook = 'lepton-jupyter:schedule-notebook';
}

/** What a command is given; each uses the fields that it names in `takes`. */
export interface IArgs {
  ref?: string;
  name?: string;
  id?: number;
  run_id?: string;
  title?: string;
  text?: string;
}

interface IAction {
  id: string;
  label: string | ((args: IArgs) => string);
  takes: (keyof IArgs)[];
  /** Returns what to say when it is done; nothing where the person changed their mind. */
  run: (args: IArgs) => Promise<string | void>;
}

/** Tell a person what went wrong, and what to do next. */
export function tell(reason: unknown): void {
  const hint = reason instanceof LeptonError && reason.hint ? ` ${reason.hint}` : '';
  Notification.error(`${reason instanceof Error ? reason.message : reason}${hint}`, {
    autoClose: 12000
  });
}

export function addCommands(app: JupyterFrontEnd, server: Server, trans: TranslationBundle): void {
  for (const action of actions(app, server, trans)) {
    app.commands.addCommand(action.id, {
      label: args =>
        typeof action.label === 'string' ? action.label : action.label(args as IArgs),
      describedBy: {
        args: {
          type: 'object',
          required: action.takes,
          properties: Object.fromEntries(
            action.takes.map(key => [key, { type: key === 'id' ? 'integer' : 'string' }])
          )
        }
      },
      execute: async args => {
        try {
          const said = await action.run(args as IArgs);
          if (said) {
            Notification.success(said, { autoClose: 4000 });
          }
        } catch (reason) {
          tell(reason);
        }
      }
    });
  }
}

function actions(app: JupyterFrontEnd, server: Server, trans: TranslationBundle): IAction[] {
  const verb = async (name: string, body: object) => (await server.verb(name, body)).text;

  const sure = async (title: string, body: string, label: string) => {
    const buttons = [Dialog.cancelButton(), Dialog.warnButton({ label })];
    const answer = await showDialog({ title, body, buttons, defaultButton: 0 });
    return answer.button.accept;
  };

  const ask = async (title: string, label: string, text = '') => {
    const answer = await InputDialog.getText({ title, label, text, required: true });
    return answer.button.accept ? answer.value : null;
  };

  return [
    {
      id: CommandIDs.openReport,
      label: trans.__('Open Notebook'),
      takes: ['run_id', 'title'],
      run: args => openReport(app, server, trans, args.run_id!, args.title ?? '')
    },
    {
      id: CommandIDs.stop,
      label: args => (args.ref?.startsWith('schedule/') ? trans.__('Pause') : trans.__('Stop…')),
      takes: ['ref'],
      run: async args => {
        const [kind, name] = args.ref!.split('/');
        const body =
          kind === 'run'
            ? trans.__('A training keeps its best checkpoint.')
            : trans.__('It answers no more requests until it is deployed again.');
        const title = trans.__('Stop %1 %2?', kind, name);
        if (kind === 'schedule' || (await sure(title, body, trans.__('Stop')))) {
          return verb('stop', { ref: args.ref });
        }
      }
    },
    {
      id: CommandIDs.remove,
      label: trans.__('Delete…'),
      takes: ['ref'],
      run: async args => {
        const title = trans.__('Delete %1?', args.ref!);
        if (await sure(title, trans.__('This cannot be undone.'), trans.__('Delete'))) {
          return verb('delete', { ref: args.ref });
        }
      }
    },
    {
      id: CommandIDs.promote,
      label: trans.__('Promote to Champion'),
      takes: ['ref'],
      run: args => verb('promote', { model: args.ref, alias: 'champion' })
    },
    {
      id: CommandIDs.deploy,
      label: trans.__('Deploy…'),
      takes: ['ref'],
      run: async args => {
        const name = await ask(trans.__('Deploy %1', args.ref!), trans.__('Name of the endpoint'));
        if (name) {
          return verb('deploy', { model: args.ref, as_: name });
        }
      }
    },
    {
      id: CommandIDs.retrain,
      label: trans.__('Retrain Now'),
      takes: ['name'],
      run: args => verb('retrain', { model: args.name, detach: true })
    },
    {
      id: CommandIDs.rollback,
      label: trans.__('Roll Back…'),
      takes: ['name'],
      run: async args => {
        const title = trans.__('Roll back %1?', args.name!);
        const body = trans.__(
          'Its canary or shadow ends. Without one, it serves its last version, and is held there.'
        );
        if (await sure(title, body, trans.__('Roll Back'))) {
          return verb('rollback', { endpoint: args.name });
        }
      }
    },
    {
      id: CommandIDs.monitor,
      label: trans.__('Report Now'),
      takes: ['name'],
      run: args => verb('monitor', { endpoint: args.name })
    },
    {
      id: CommandIDs.fire,
      label: trans.__('Fire Now'),
      takes: ['name'],
      run: args => verb('tick', { schedule: args.name, detach: true })
    },
    {
      id: CommandIDs.acknowledge,
      label: trans.__('Acknowledge…'),
      takes: ['id'],
      run: async args => {
        const why = await ask(trans.__('Acknowledge this alert'), trans.__('Reason'));
        if (why) {
          return verb('alerts', { ack: args.id, why });
        }
      }
    },
    {
      id: CommandIDs.silence,
      label: trans.__('Silence for an Hour…'),
      takes: ['id'],
      run: async args => {
        const why = await ask(trans.__('Silence this alert for an hour'), trans.__('Reason'));
        if (why) {
          return verb('alerts', { silence: args.id, hours: 1, why });
        }
      }
    },
    {
      id: CommandIDs.copy,
      label: args => args.title ?? trans.__('Copy'),
      takes: ['text', 'title'],
      run: async args => {
        Clipboard.copyToSystem(args.text!);
        return trans.__('Copied: %1', args.text!);
      }
    }
  ];
}
