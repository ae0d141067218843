import * as React from 'react';
import { CommandIDs } from '../commands';
import { IEndpoint } from '../views';
import { Entry, Row, useHere } from './row';

export function Endpoints(props: { endpoints: IEndpoint[] }): JSX.Element {
  return (
    <>
      {props.endpoints.map(endpoint => (
        <EndpointRow key={endpoint.name} endpoint={endpoint} />
      ))}
    </>
  );
}

function EndpointRow(props: { endpoint: IEndpoint }): JSX.Element {
  const { trans } = useHere();
  const { endpoint } = props;
  const { name, beside } = endpoint;
  const ref = `endpoint/${name}`;
  const replicas = endpoint.replicas ?? 1;
  const isUp = endpoint.state !== 'stopped';
  const menu: Entry[] = [
    { command: CommandIDs.copy, args: { text: endpoint.url, title: trans.__('Copy Address') } },
    ...(isUp ? [{ command: CommandIDs.monitor, args: { name } }] : []),
    null,
    { command: CommandIDs.rollback, args: { name } },
    isUp
      ? { command: CommandIDs.stop, args: { ref } }
      : { command: CommandIDs.remove, args: { ref } }
  ];
  return (
    <Row
      state={endpoint.state}
      title={name}
      aside={endpoint.version}
      facts={[
        endpoint.follows && trans.__('follows %1', endpoint.follows),
        endpoint.is_held && trans.__('held'),
        beside && `${beside.kind} ${beside.version}`,
        endpoint.url.replace(/^https?:\/\//, '')
      ]}
      trouble={endpoint.error?.message ?? endpoint.warning}
      menu={menu}
      details={[
        [trans.__('address'), endpoint.url],
        [trans.__('serves'), endpoint.version],
        [beside?.kind ?? '', beside?.verdict ?? ''],
        [
          trans.__('replicas'),
          replicas > 1 ? trans.__('%1 of %2', endpoint.n_ready ?? 0, replicas) : ''
        ],
        [trans.__('restarts'), endpoint.n_restarts ? String(endpoint.n_restarts) : '']
      ]}
    />
  );
}
