import { TranslationBundle } from '@jupyterlab/translation';
import { caretDownIcon, caretRightIcon, ellipsesIcon } from '@jupyterlab/ui-components';
import { CommandRegistry } from '@lumino/commands';
import { Menu } from '@lumino/widgets';
import * as React from 'react';
import { Bar } from '../card/card';
import { tone } from '../colour';
import { IArgs } from '../commands';

/** What every part of the sidebar is given. */
export interface IHere {
  commands: CommandRegistry;
  trans: TranslationBundle;
  now: number;
}

export const Here = React.createContext<IHere | null>(null);

export function useHere(): IHere {
  return React.useContext(Here)!;
}

/** One line of a row's menu; null is a line between. */
export type Entry = { command: string; args: IArgs } | null;

export interface IRowProps {
  /** Colours the dot; read out before the title. */
  state: string;
  title: string;
  /** Right of the title. */
  aside?: React.ReactNode;
  /** Below it: pieces that are set apart by dots. */
  facts: (string | number | false | undefined | null)[];
  /** What is wrong, in its own line. */
  trouble?: string;
  /** Present while it moves; null where its share cannot be said. */
  share?: number | null;
  details: [string, React.ReactNode][];
  menu: Entry[];
}

export function Row(props: IRowProps): JSX.Element {
  const { commands, trans } = useHere();
  const [isOpen, setOpen] = React.useState(false);
  const details = props.details.filter(([, value]) => value !== '' && value !== undefined);
  const show = (event: React.MouseEvent) => {
    event.preventDefault();
    const box = event.currentTarget.getBoundingClientRect();
    const isKey = event.clientX === 0 && event.clientY === 0;
    openMenu(
      commands,
      props.menu,
      isKey ? box.left : event.clientX,
      isKey ? box.bottom : event.clientY
    );
  };
  return (
    <li className={`jp-Lepton-row ${tone(props.state)}`} onContextMenu={show}>
      <div className="jp-Lepton-rowLine">
        <i className="jp-Lepton-dot" aria-hidden />
        <button
          className="jp-Lepton-rowTitle"
          aria-expanded={isOpen}
          title={props.title}
          onClick={() => setOpen(!isOpen)}
        >
          {props.title}
        </button>
        {props.aside && <span className="jp-Lepton-rowAside">{props.aside}</span>}
        <button
          className="jp-Lepton-kebab"
          aria-haspopup="menu"
          aria-label={trans.__('Actions for %1', props.title)}
          title={trans.__('Actions')}
          onClick={show}
        >
          <ellipsesIcon.react tag="span" width="14px" height="14px" />
        </button>
      </div>
      <div className="jp-Lepton-rowFacts">
        <span role="status">{props.state}</span>
        {props.facts.filter(Boolean).map((fact, at) => (
          <span key={at}>{fact}</span>
        ))}
      </div>
      {props.share !== undefined && (
        <Bar share={props.share} label={trans.__('Progress of %1', props.title)} />
      )}
      {props.trouble && <div className="jp-Lepton-rowTrouble">{props.trouble}</div>}
      {isOpen && (
        <dl className="jp-Lepton-details">
          {details.map(([key, value]) => (
            <React.Fragment key={key}>
              <dt>{key}</dt>
              <dd>{value}</dd>
            </React.Fragment>
          ))}
        </dl>
      )}
    </li>
  );
}

export function openMenu(commands: CommandRegistry, entries: Entry[], x: number, y: number): void {
  const menu = new Menu({ commands });
  for (const entry of entries) {
    menu.addItem(entry ? { ...entry, args: { ...entry.args } } : { type: 'separator' });
  }
  menu.aboutToClose.connect(() => window.setTimeout(() => menu.dispose())); // its command runs first
  menu.open(x, y);
}

/** Text that does something, inside details. */
export function Link(props: { command: string; args: IArgs; children: string }): JSX.Element {
  const { commands } = useHere();
  return (
    <button
      className="jp-Lepton-link"
      onClick={() => void commands.execute(props.command, { ...props.args })}
    >
      {props.children}
    </button>
  );
}

export interface ISectionProps {
  title: string;
  count: number;
  /** Said where there is nothing yet. */
  says: string;
  /** What to type next; of all empty sections only the first teaches. */
  hint?: string;
  children: React.ReactNode;
}

export function Section(props: ISectionProps): JSX.Element {
  const { trans } = useHere();
  const [isOpen, setOpen] = React.useState(true);
  const Caret = isOpen ? caretDownIcon : caretRightIcon;
  return (
    <section aria-label={props.title}>
      <h3>
        <button aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          <Caret.react tag="span" width="16px" height="16px" />
          {props.title}
          {props.count > 0 && (
            <span className="jp-Lepton-count" aria-label={trans.__('%1 entries', props.count)}>
              {props.count}
            </span>
          )}
        </button>
      </h3>
      {isOpen &&
        (props.count > 0 ? (
          <ul>{props.children}</ul>
        ) : (
          <div className="jp-Lepton-empty">
            {props.says}
            {props.hint && <Code text={props.hint} />}
          </div>
        ))}
    </section>
  );
}

/** A line to type, that can be copied with a click. */
export function Code(props: { text: string }): JSX.Element {
  const { commands, trans } = useHere();
  return (
    <button
      className="jp-Lepton-code"
      title={trans.__('Copy')}
      onClick={() => void commands.execute('lepton-jupyter:copy', { text: props.text })}
    >
      {props.text.split('\n').map(line => (
        <code key={line}>
          {line.split(' ').map((word, at) => (
            <React.Fragment key={at}>
              <span>{word}</span>{' '}
            </React.Fragment>
          ))}
        </code>
      ))}
    </button>
  );
}
