import * as React from 'react';
import { tone } from '../colour';
import { CommandIDs } from '../commands';
import { IFiring, ISchedule } from '../views';
import { about, clock } from '../words';
import { Entry, Link, Row, useHere } from './row';

export function Schedules(props: { schedules: ISchedule[] }): JSX.Element {
  return (
    <>
      {props.schedules.map(schedule => (
        <ScheduleRow key={schedule.name} schedule={schedule} />
      ))}
    </>
  );
}

function ScheduleRow(props: { schedule: ISchedule }): JSX.Element {
  const { now, trans } = useHere();
  const { schedule } = props;
  const { name, firings = [] } = schedule;
  const last = firings.find(firing => firing.run_id) ?? schedule.last; // the skipped ones say less
  const skipped = firings.filter(firing => firing.state === 'skipped').length;
  const ref = `schedule/${name}`;
  const next = schedule.next_due_at;
  const isActive = schedule.state === 'active';
  const menu: Entry[] = [
    { command: CommandIDs.fire, args: { name } },
    ...(isActive ? [{ command: CommandIDs.stop, args: { ref } }] : []),
    ...(last?.run_id
      ? [{ command: CommandIDs.openReport, args: { run_id: last.run_id, title: name } }]
      : []),
    ...(schedule.command
      ? [
          {
            command: CommandIDs.copy,
            args: { text: schedule.command, title: trans.__('Copy Command') }
          }
        ]
      : []),
    null,
    { command: CommandIDs.remove, args: { ref } }
  ];
  return (
    <Row
      state={schedule.state}
      title={name}
      aside={schedule.every || trans.__('when asked')}
      facts={[
        isActive &&
          next &&
          (next > now ? trans.__('next in %1', about(next - now)) : trans.__('now')),
        last && `${came(last)} ${trans.__('%1 ago', about(now - last.at))}`
      ]}
      trouble={
        schedule.error ||
        (schedule.is_source_changed
          ? trans.__('Its notebook has changed since it was scheduled.')
          : '')
      }
      menu={menu}
      details={[
        [
          trans.__('runs'),
          schedule.notebook ? schedule.subject : `${schedule.kind} ${schedule.subject}`
        ],
        [trans.__('zone'), schedule.tz],
        [trans.__('next'), next ? clock(next, now) : ''],
        [trans.__('fired'), String(schedule.n_fired ?? 0)],
        [trans.__('missed'), schedule.n_missed ? String(schedule.n_missed) : ''],
        [
          trans.__('skipped'),
          skipped ? trans.__('%1 of the last %2', skipped, firings.length) : ''
        ],
        [trans.__('alerts'), (schedule.alerts ?? []).join(', ')],
        [trans.__('last'), <Firings firings={firings} name={name} />]
      ]}
    />
  );
}

/** What became of a firing, in a word. */
function came(firing: IFiring): string {
  return firing.verdict || firing.run_state || firing.state;
}

function Firings(props: { firings: IFiring[]; name: string }): JSX.Element {
  const { now, trans } = useHere();
  const told = props.firings.filter(firing => firing.state !== 'skipped');
  return (
    <ol>
      {told.slice(0, 5).map(firing => (
        <li
          key={`${firing.due_at} ${firing.at}`}
          className={tone(firing.run_state || firing.state)}
        >
          <i className="jp-Lepton-dot" aria-hidden />
          {firing.run_id ? (
            <Link
              command={CommandIDs.openReport}
              args={{ run_id: firing.run_id, title: props.name }}
            >
              {clock(firing.due_at, now)}
            </Link>
          ) : (
            clock(firing.due_at, now)
          )}{' '}
          {came(firing)}
          {firing.n_missed ? ` ${trans.__('(%1 missed)', firing.n_missed)}` : ''}
          {firing.why ? ` · ${firing.why}` : ''}
        </li>
      ))}
    </ol>
  );
}
