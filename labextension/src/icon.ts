import { LabIcon } from '@jupyterlab/ui-components';

/** A light particle and its path. */
export const leptonIcon = new LabIcon({
  name: 'lepton-jupyter:lepton',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 22 22">
  <g fill="none" class="jp-icon3" stroke="#616161" stroke-width="1.7">
    <ellipse cx="11" cy="11" rx="9" ry="3.9" transform="rotate(-32 11 11)" class="jp-icon3" stroke="#616161" fill="none"/>
  </g>
  <circle class="jp-icon3" cx="11" cy="11" r="2.6" fill="#616161"/>
  <circle class="jp-icon3" cx="18.2" cy="5.4" r="1.9" fill="#616161"/>
</svg>`
});
