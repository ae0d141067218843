import { Dialog } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { IParameter, readValue, shownValue } from './parameters';

const EVERY = ['30m', '1h', 'daily', 'weekly', '0 7 * * mon', '0 6 1 * *'];

export interface IAnswers {
  name: string;
  every: string;
  tz: string;
  params: Record<string, unknown>;
}

/** The fields of `%lepton schedule`, and one for each parameter of the notebook. */
export class ScheduleForm extends Widget implements Dialog.IBodyWidget<IAnswers> {
  constructor(
    trans: TranslationBundle,
    private _parameters: IParameter[],
    defaults: { name: string; every: string; tz: string; typed: Record<string, string> },
    trouble: string
  ) {
    super();
    this.addClass('jp-Lepton-form');
    if (trouble) {
      const box = this._element('p', 'jp-Lepton-formTrouble', trouble);
      box.setAttribute('role', 'alert');
    }
    this._field('every', trans.__('Every'), defaults.every, {
      help: trans.__('30m, 1h, daily, weekly, or a cron expression'),
      choices: EVERY
    });
    this._field('tz', trans.__('Time zone'), defaults.tz, { choices: zones() });
    this._field('name', trans.__('Name'), defaults.name, {});
    if (_parameters.length) {
      this._element('h4', '', trans.__('Parameters'));
    }
    for (const one of _parameters) {
      const value = defaults.typed[one.name] ?? shownValue(one);
      this._field(`p:${one.name}`, one.name, value, { help: one.help, isFlag: isFlag(one) });
    }
  }

  /** What stands in the fields; of the parameters only those that differ from the notebook's own. */
  getValue(): IAnswers {
    const params: Record<string, unknown> = {};
    for (const one of this._parameters) {
      const typed = this._typed(`p:${one.name}`);
      if (typed !== shownValue(one)) {
        params[one.name] = readValue(one, typed);
      }
    }
    const { every, tz, name } = this._all();
    return { every, tz, name, params };
  }

  /** Everything as typed, to be shown again beside what was wrong with it. */
  get answers(): { name: string; every: string; tz: string; typed: Record<string, string> } {
    const typed = this._parameters.map(one => [one.name, this._typed(`p:${one.name}`)]);
    return { ...this._all(), typed: Object.fromEntries(typed) };
  }

  private _all(): { name: string; every: string; tz: string } {
    return {
      every: this._typed('every').trim(),
      tz: this._typed('tz').trim(),
      name: this._typed('name').trim()
    };
  }

  private _typed(key: string): string {
    const input = this._inputs[key];
    return input.type === 'checkbox' ? (input.checked ? 'True' : 'False') : input.value;
  }

  private _field(
    key: string,
    label: string,
    value: string,
    options: { help?: string; choices?: string[]; isFlag?: boolean }
  ): void {
    const row = this._element('label', 'jp-Lepton-formRow', '');
    const caption = document.createElement('span');
    caption.textContent = label;
    const input = document.createElement('input');
    input.name = key;
    input.autocomplete = 'off';
    if (options.isFlag) {
      input.type = 'checkbox';
      input.checked = value === 'True';
    } else {
      input.className = 'jp-mod-styled';
      input.value = value;
    }
    row.append(caption, input);
    if (options.choices) {
      const list = document.createElement('datalist');
      list.id = `lepton-choices-${key}`;
      list.append(...options.choices.map(choice => new Option(choice, choice)));
      input.setAttribute('list', list.id);
      row.append(list);
    }
    if (options.help) {
      const help = document.createElement('small');
      help.textContent = options.help;
      row.append(help);
    }
    this._inputs[key] = input;
  }

  private _element(tag: string, className: string, text: string): HTMLElement {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    this.node.append(element);
    return element;
  }

  private _inputs: Record<string, HTMLInputElement> = {};
}

function isFlag(parameter: IParameter): boolean {
  return typeof parameter.value === 'boolean';
}

export function localZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
}

function zones(): string[] {
  const { supportedValuesOf } = Intl as unknown as {
    supportedValuesOf?: (key: string) => string[];
  };
  return supportedValuesOf ? supportedValuesOf('timeZone') : [localZone(), 'UTC'];
}
