import * as React from 'react';
import { tone } from '../colour';
import { CommandIDs } from '../commands';
import { IVersion, refOf } from '../views';
import { about, figure } from '../words';
import { Entry, Link, Row, useHere } from './row';

/** Of each model the newest version and those that have an alias; the older ones on request. */
export function Models(props: { models: IVersion[] }): JSX.Element {
  const names = [...new Set(props.models.map(version => version.model))];
  return (
    <>
      {names.map(name => (
        <Model key={name} versions={props.models.filter(version => version.model === name)} />
      ))}
    </>
  );
}

function Model(props: { versions: IVersion[] }): JSX.Element {
  const { trans } = useHere();
  const [isAll, setAll] = React.useState(false);
  const shown = props.versions.filter((one, at) => isAll || at === 0 || one.aliases?.length);
  const n_older = props.versions.length - shown.length;
  return (
    <>
      {shown.map(version => (
        <VersionRow key={version.run_id} version={version} />
      ))}
      {(n_older > 0 || isAll) && (
        <li>
          <button className="jp-Lepton-link jp-mod-more" onClick={() => setAll(!isAll)}>
            {isAll
              ? trans.__('Show fewer')
              : trans.__('Show %1 more of %2', n_older, props.versions[0].model)}
          </button>
        </li>
      )}
    </>
  );
}

function VersionRow(props: { version: IVersion }): JSX.Element {
  const { now, trans } = useHere();
  const { version } = props;
  const ref = refOf(version);
  const opened = { command: CommandIDs.openReport, args: { run_id: version.run_id, title: ref } };
  const isChampion = version.aliases?.includes('champion');
  const menu: Entry[] = [
    ...(version.is_deployable ? [{ command: CommandIDs.deploy, args: { ref } }] : []),
    ...(isChampion ? [] : [{ command: CommandIDs.promote, args: { ref } }]),
    { command: CommandIDs.retrain, args: { name: version.model } },
    null,
    opened,
    {
      command: CommandIDs.copy,
      args: { text: `%lepton show ${ref}`, title: trans.__('Copy Command') }
    },
    null,
    { command: CommandIDs.remove, args: { ref: `model/${ref}` } }
  ];
  const state = version.verdict || trans.__('not evaluated');
  return (
    <Row
      state={state}
      title={version.number === null ? version.model : ref}
      aside={version.aliases?.map(alias => (
        <span key={alias} className={`jp-Lepton-pill ${tone(alias)}`}>
          {alias}
        </span>
      ))}
      facts={[version.task, trans.__('%1 ago', about(now - version.created_at))]}
      trouble={version.is_deployable ? version.remark : version.why_not}
      menu={menu}
      details={[
        [trans.__('data'), version.dataset ?? ''],
        [trans.__('framework'), version.framework ?? ''],
        ...Object.entries(version.metrics ?? {}).map(([key, value]): [string, string] => [
          key,
          figure(value)
        ]),
        ['', <Link {...opened}>{trans.__('Open its training')}</Link>]
      ]}
    />
  );
}
