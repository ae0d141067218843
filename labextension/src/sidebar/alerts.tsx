import * as React from 'react';
import { CommandIDs } from '../commands';
import { IAlert } from '../views';
import { about, clock, figure } from '../words';
import { Entry, Link, Row, useHere } from './row';

const ORDER = ['firing', 'pending', 'resolved'];
const N_RESOLVED = 3;

/** What fires first, then what is pending, then the newest few that are over. */
export function Alerts(props: { alerts: IAlert[] }): JSX.Element {
  const sorted = [...props.alerts].sort(
    (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || b.changed_at - a.changed_at
  );
  const standing = sorted.filter(alert => alert.state !== 'resolved');
  const over = sorted.filter(alert => alert.state === 'resolved').slice(0, N_RESOLVED);
  return (
    <>
      {[...standing, ...over].map(alert => (
        <AlertRow key={alert.id} alert={alert} />
      ))}
    </>
  );
}

function AlertRow(props: { alert: IAlert }): JSX.Element {
  const { now, trans } = useHere();
  const { alert } = props;
  const report = alert.run_id
    ? { command: CommandIDs.openReport, args: { run_id: alert.run_id, title: alert.subject } }
    : null;
  const menu: Entry[] = [
    ...(report ? [report, null] : []),
    { command: CommandIDs.acknowledge, args: { id: alert.id } },
    { command: CommandIDs.silence, args: { id: alert.id } }
  ];
  const isSilent = alert.silenced_until && alert.silenced_until > now;
  return (
    <Row
      state={alert.state}
      title={`${alert.subject}: ${alert.rule}`}
      aside={figure(alert.value)}
      facts={[
        trans.__('for %1', about(now - alert.since)),
        alert.acked_by && trans.__('seen by %1', alert.acked_by),
        isSilent && trans.__('silent until %1', clock(alert.silenced_until!, now))
      ]}
      menu={menu}
      details={[
        ['', alert.text ?? ''],
        [trans.__('since'), clock(alert.since, now)],
        [trans.__('seen'), alert.acked_why ?? ''],
        ...(alert.deliveries ?? []).map((one): [string, string] => [
          one.channel,
          `${one.state}${one.last_error ? ` · ${one.last_error}` : ''}`
        ]),
        ['', report ? <Link {...report}>{trans.__('Open the report')}</Link> : '']
      ]}
    />
  );
}
