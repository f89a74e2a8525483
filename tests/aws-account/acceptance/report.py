"""The report: text, JSON and a picture."""

import collections
import dataclasses
import json
from xml.sax.saxutils import escape

SIMULATED = ('Against the simulator: the verdicts are those of its settings, and the times are of stand-ins for routers and '
             'network. They say nothing about AWS.')
WIDTH, LABEL, ROW = 900, 260, 21
MARKS = {'confirmed': ('✓', '#2a7d4f'), 'refuted': ('✗', '#b3261e'), 'not told': ('?', '#8a6d00')}


class Report:
    """What a run found, as far as it came."""

    def __init__(self, about):
        # What was accepted, where and when: name and value.
        self.about = about
        self.verdicts, self.measurements, self.not_measured, self.left, self.notes = [], [], [], [], []

    @property
    def simulated(self):
        return self.about['against'] == 'simulator'

    def holds(self):
        """Whether nothing that was assumed is refuted, and every failover was measured and ended."""
        return not (any(verdict.verdict == 'refuted' for verdict in self.verdicts) or self.not_measured
                    or any(measurement.counts and measurement.outage is None for measurement in self.measurements))

    def json(self):
        return json.dumps({
            'format': 1, 'about': self.about, 'notes': self.notes,
            'assumptions': [dataclasses.asdict(verdict) for verdict in self.verdicts],
            'failovers': [dataclasses.asdict(measurement) for measurement in self.measurements],
            'not-measured': [{'scenario': name, 'reason': reason} for name, reason in self.not_measured],
            'left': self.left}, indent=2) + '\n'

    def text(self):
        lines = ['Acceptance of vyos-aws-vipa', '']
        lines += [f'{name + ":":12}{value}' for name, value in self.about.items()]
        if self.simulated:
            lines += ['', SIMULATED]
        lines += ['', *(f'Note: {note}' for note in self.notes)] if self.notes else []
        if self.verdicts:
            lines += ['', 'Assumptions']
            for verdict in self.verdicts:
                first, last = verdict.answers
                lines += [f'  {verdict.verdict:10} {verdict.assumption}', f'             {verdict.detail}',
                          f'             answers {first:04} to {last:04}']
        if self.measurements:
            lines += ['', 'Failovers: time without an answer, seen by a client']
        for scenario, measurements in self.by_scenario():
            lines.append(f'  {scenario}')
            for each in measurements:
                took = f'{each.outage:,.0f} ms' if each.outage is not None else 'no answer' if each.counts else 'no failover'
                lines.append(f'    {each.path:36}{took:>12}{"  (" + each.detail + ")" if each.detail else ""}')
        if self.not_measured:
            lines += ['', 'Not measured'] + [f'  {name}: {reason}' for name, reason in self.not_measured]
        lines += ['', 'Left in the account:' if self.left else 'Nothing is left in the account.'] + [f'  {line}' for line in self.left]
        return '\n'.join(lines) + '\n'

    def by_scenario(self):
        scenarios = collections.defaultdict(list)
        for measurement in self.measurements:
            scenarios[measurement.scenario].append(measurement)
        return scenarios.items()

    def svg(self):
        """Bars of the outages, below the verdicts."""
        body, y = [], 30

        def write(x, y, text, style=''):
            body.append(f'<text x="{x}" y="{y}" {style}>{escape(str(text))}</text>')

        title = f'vyos-aws-vipa in {self.about["region"]}, {self.about["date"]}'
        write(12, y, title, 'font-weight="bold"')
        if self.simulated:
            y += ROW
            write(12, y, 'Simulator: no figures of AWS', 'fill="#b3261e" font-weight="bold"')
        for verdict in self.verdicts:
            y += ROW
            mark, colour = MARKS[verdict.verdict]
            write(12, y, mark, f'fill="{colour}" font-weight="bold"')
            write(30, y, verdict.assumption if len(verdict.assumption) <= 130 else f'{verdict.assumption[:127]}…')
        longest = max([each.outage or 0 for each in self.measurements], default=0) or 1
        for scenario, measurements in self.by_scenario():
            y += ROW + 8
            write(12, y, scenario, 'font-weight="bold"')
            for each in measurements:
                y += ROW
                write(24, y, each.path)
                if each.outage is None:
                    write(LABEL, y, *(('no answer', 'fill="#b3261e"') if each.counts else ('no failover',)))
                    continue
                length = max(1, each.outage / longest * (WIDTH - LABEL - 100))
                body.append(f'<rect x="{LABEL}" y="{y - 12}" width="{length:.0f}" height="14" fill="#0b5fa5"/>')
                write(LABEL + length + 6, y, f'{each.outage:,.0f} ms')
        height = y + 20
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
                'font-family="sans-serif" font-size="12" fill="#222222">\n'
                f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n<title>{escape(title)}</title>\n' + '\n'.join(body) + '\n</svg>\n')

    def write(self, directory):
        for name, content in (('report.txt', self.text()), ('report.json', self.json()), ('report.svg', self.svg())):
            (directory / name).write_text(content)
