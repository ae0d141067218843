import * as React from 'react';
import { metricsOf, share, steps, times } from '../card/facts';
import { CommandIDs } from '../commands';
import { hasEnded, IRun, versionOf } from '../views';
import { about, span } from '../words';
import { Entry, Link, Row, useHere } from './row';

const N_SHOWN = 8; // what moves, and the newest; the rest on request

export function Runs(props: { runs: IRun[] }): JSX.Element {
  const { trans } = useHere();
  const [isAll, setAll] = React.useState(false);
  const moving = props.runs.filter(run => !hasEnded(run));
  const ended = props.runs.filter(hasEnded);
  const shown = isAll ? ended : ended.slice(0, Math.max(3, N_SHOWN - moving.length));
  const n_more = ended.length - shown.length;
  return (
    <>
      {[...moving, ...shown].map(run => (
        <RunRow key={run.run_id} run={run} />
      ))}
      {(n_more > 0 || isAll) && (
        <li>
          <button className="jp-Lepton-link jp-mod-more" onClick={() => setAll(!isAll)}>
            {isAll ? trans.__('Show fewer') : trans.__('Show %1 more', n_more)}
          </button>
        </li>
      )}
    </>
  );
}

function RunRow(props: { run: IRun }): JSX.Element {
  const { now, trans } = useHere();
  const { run } = props;
  const isOver = hasEnded(run);
  const { took, left } = times(run, now);
  const name = `${run.kind} ${run.title}`;
  const opened = { command: CommandIDs.openReport, args: { run_id: run.run_id, title: name } };
  const ref = `run/${run.run_id}`;
  const menu: Entry[] = [
    opened,
    {
      command: CommandIDs.copy,
      args: { text: `%lepton show ${ref}`, title: trans.__('Copy Command') }
    },
    null,
    isOver
      ? { command: CommandIDs.remove, args: { ref } }
      : { command: CommandIDs.stop, args: { ref } }
  ];
  const found = run.result as
    { verdict?: string; headline?: string; decision?: string } | undefined;
  return (
    <Row
      state={run.state}
      title={name}
      aside={versionOf(run) || found?.verdict || found?.decision}
      share={isOver ? undefined : share(run)}
      facts={[
        !isOver &&
          run.progress?.total &&
          trans.__('%1 of %2', run.progress.done ?? 0, run.progress.total),
        isOver && trans.__('%1 ago', about(now - (run.ended_at ?? run.created_at))),
        left !== null ? trans.__('%1 left', about(left)) : !isOver && took !== null && span(took)
      ]}
      trouble={run.state === 'stopped' ? undefined : run.error?.message}
      menu={menu}
      details={[
        [trans.__('run'), run.run_id],
        [trans.__('done'), steps(run)],
        [trans.__('took'), span(took ?? -1)],
        [trans.__('data'), run.dataset ?? ''],
        [trans.__('found'), found?.headline ?? ''],
        ...metricsOf(run),
        ['', <Link {...opened}>{trans.__('Open notebook')}</Link>]
      ]}
    />
  );
}
