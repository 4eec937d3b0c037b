// SPDX-License-Identifier: GPL-2.0

//! The charts of the report.

use anyhow::Result;
use plotters::style::RGBColor;

use crate::{
    chart::{self, Axis, Chart, colour, log},
    plan::Test,
    results::{Bound, Results, RowResult, Side},
    screen::figure,
};

/// Pixels of a row of bars that lie.
const LYING_ROW: u32 = 40;

/// Ratios of all rows, as bars that start where nothing changes.
///
/// # Errors
///
/// The plotting crate refuses.
pub fn ratios(results: &Results) -> Result<String> {
    let rows: Vec<(String, &RowResult)> = named(&results.rows, "")
        .chain(named(&results.no_module, ", peer without module"))
        .collect();
    let values = rows
        .iter()
        .flat_map(|(_, row)| [row.ratio * 2.0, row.ratio, row.goal.unwrap_or(1.0), 1.0]);
    let x = Axis::ratios("times netfront (logarithmic)", values, 52);
    chart::svg(height(rows.len()), &x, &names(&rows), |chart| {
        for (index, (_, row)) in rows.iter().enumerate() {
            let y = place(rows.len(), index);
            chart.bar(
                (log(1.0), y - 0.28),
                (log(row.ratio), y + 0.28),
                colour::XENVMC,
            )?;
            let mut text = format!("{}×", figure(row.ratio));
            if let Some(goal) = row.goal {
                chart.line(
                    &[(log(goal), y - 0.42), (log(goal), y + 0.42)],
                    colour::GOAL,
                    true,
                )?;
                text += &format!(
                    "  (goal {goal}: {})",
                    if row.is_met() { "met" } else { "missed" }
                );
            }
            let end = log(row.ratio).max(row.goal.map_or(0.0, log)).max(0.0);
            chart.right((end, y), text, colour::INK)?;
        }
        Ok(())
    })
}

/// Streams by size of message, with what bounds them.
///
/// # Errors
///
/// The plotting crate refuses.
pub fn streams(results: &Results) -> Result<String> {
    let rows: Vec<&RowResult> = results
        .rows
        .iter()
        .filter(|row| row.test == Test::Stream)
        .collect();
    let bound = |test: &str, factor: f64| -> Vec<(f64, f64)> {
        let of_test = |bound: &&Bound| bound.test == test;
        results
            .bounds
            .iter()
            .filter(of_test)
            .map(|b| (log2(b.size), log(b.median * factor)))
            .collect()
    };
    // Mega bytes to mega bits.
    let lines = [
        (bound("memcpy", 8.0), colour::MEMCPY),
        (bound("zero", 8.0), colour::ZERO),
        (bound(Test::Stream.name(), 1.0), colour::LOOPBACK),
    ];
    let bounds = lines
        .iter()
        .flat_map(|(line, _)| line.iter().map(|(_, y)| 10_f64.powf(*y)));
    let y = Axis::decades("Mb/s (logarithmic)", values(&rows).chain(bounds), 72);
    let sizes: Vec<u32> = rows.iter().map(|row| row.size).collect();
    let (first, last) = (
        sizes.first().copied().unwrap_or(1),
        sizes.last().copied().unwrap_or(1),
    );
    let x = Axis {
        title: "bytes per message".to_owned(),
        range: log2(first) - 0.5..log2(last) + 0.5,
        ticks: sizes
            .iter()
            .map(|&size| (log2(size), chart::thousands(f64::from(size))))
            .collect(),
        room: 52,
        grid: false,
    };
    chart::svg(440, &x, &y, |chart| {
        for (line, colour) in &lines {
            chart.line(line, *colour, false)?;
            for &point in line {
                chart.dot(point, *colour)?;
            }
        }
        for (of, colour) in SIDES {
            let median: Vec<(f64, f64)> = rows
                .iter()
                .map(|row| (log2(row.size), log(of(row).median)))
                .collect();
            chart.line(&median, colour, true)?;
            for row in &rows {
                for value in of(row).values() {
                    chart.dot((log2(row.size), log(value)), colour)?;
                }
            }
        }
        for row in &rows {
            let top = row
                .xenvmc
                .values()
                .chain([row.netfront.median])
                .fold(0.0, f64::max);
            chart.above(
                (log2(row.size), log(top)),
                format!("{}×", figure(row.ratio)),
                colour::INK,
            )?;
        }
        Ok(())
    })
}

/// Transactions by size, as groups of bars.
///
/// # Errors
///
/// The plotting crate refuses.
pub fn transactions(results: &Results) -> Result<String> {
    let rows: Vec<&RowResult> = results
        .rows
        .iter()
        .filter(|row| !row.test.is_stream())
        .collect();
    let loopback = |row: &RowResult| {
        let same = |bound: &&Bound| bound.test == row.test.name() && bound.size == row.size;
        results.bounds.iter().find(same).map(|bound| bound.median)
    };
    let bounds = rows.iter().filter_map(|row| loopback(row));
    let y = Axis::decades(
        "transactions per second (logarithmic)",
        values(&rows).chain(bounds),
        72,
    );
    let base = y.range.start;
    let name = |row: &RowResult| {
        format!(
            "{} {} B",
            row.test.name(),
            chart::thousands(f64::from(row.size))
        )
    };
    let x = Axis {
        title: String::new(),
        range: -0.5..rows.len() as f64 - 0.5,
        ticks: rows
            .iter()
            .enumerate()
            .map(|(index, row)| (index as f64, name(row)))
            .collect(),
        room: 32,
        grid: false,
    };
    chart::svg(400, &x, &y, |chart| {
        for (index, row) in rows.iter().enumerate() {
            let mut left = index as f64 - 0.36;
            for (of, colour) in SIDES {
                let side = of(row);
                bar(chart, left, base, side.median, colour)?;
                for value in side.values() {
                    chart.dot((left + 0.12, log(value)), colour)?;
                }
                left += 0.24;
            }
            if let Some(value) = loopback(row) {
                bar(chart, left, base, value, colour::LOOPBACK)?;
            }
            let top = row
                .xenvmc
                .values()
                .chain([row.netfront.median])
                .fold(0.0, f64::max);
            chart.above(
                (index as f64, log(top)),
                format!("{}×", figure(row.ratio)),
                colour::INK,
            )?;
        }
        Ok(())
    })
}

/// CPU time per unit of work, as lying bars of both sides; netfront's is 100 %.
///
/// # Errors
///
/// The plotting crate refuses.
pub fn cpu(results: &Results) -> Result<String> {
    let rows: Vec<(String, &RowResult)> = named(&results.rows, "").collect();
    let percent =
        |row: &RowResult, value: f64| value / row.netfront.cpu_seconds_per_1000.sum() * 100.0;
    let most = rows
        .iter()
        .map(|(_, row)| percent(row, row.xenvmc.cpu_seconds_per_1000.sum()))
        .fold(100.0, f64::max);
    let step = if most > 400.0 { 100.0 } else { 25.0 };
    let ticks = (0..=(most / step).ceil() as u32).map(|n| f64::from(n) * step);
    let x = Axis {
        title: "CPU seconds per unit of work, all of netfront's = 100".to_owned(),
        range: 0.0..most * 1.2,
        ticks: ticks
            .filter(|at| *at <= most * 1.2)
            .map(|at| (at, format!("{at:.0}")))
            .collect(),
        room: 52,
        grid: true,
    };
    chart::svg(height(rows.len()), &x, &names(&rows), |chart| {
        for (index, (_, row)) in rows.iter().enumerate() {
            for ((of, colour), y) in SIDES.into_iter().zip([0.2, -0.2]) {
                let y = place(rows.len(), index) + y;
                let cpu = of(row).cpu_seconds_per_1000;
                let mut left = 0.0;
                for (seconds, colour) in [
                    (cpu.dom0, colour::DOM0),
                    (cpu.client, colour::CLIENT),
                    (cpu.server, colour::SERVER),
                ] {
                    let right = left + percent(row, seconds);
                    chart.bar((left, y - 0.17), (right, y + 0.17), colour)?;
                    left = right;
                }
                let name = if colour == colour::XENVMC {
                    "xenvmc"
                } else {
                    "netfront"
                };
                chart.right((left, y), format!("{name} {left:.0}"), colour::INK)?;
            }
        }
        Ok(())
    })
}

/// One side of a row.
type SideOf = fn(&RowResult) -> &Side;

/// Both sides of a row and their colours.
const SIDES: [(SideOf, RGBColor); 2] = [
    (|row| &row.netfront, colour::NETFRONT),
    (|row| &row.xenvmc, colour::XENVMC),
];

fn bar(chart: &mut Chart<'_>, left: f64, base: f64, value: f64, colour: RGBColor) -> Result<()> {
    chart.bar((left + 0.01, base), (left + 0.23, log(value)), colour)
}

fn values<'a>(rows: &'a [&RowResult]) -> impl Iterator<Item = f64> + 'a {
    rows.iter()
        .flat_map(|row| row.netfront.values().chain(row.xenvmc.values()))
}

fn named<'a>(rows: &'a [RowResult], what: &str) -> impl Iterator<Item = (String, &'a RowResult)> {
    rows.iter().map(move |row| {
        let size = chart::thousands(f64::from(row.size));
        (format!("{} {size} B{what}", row.test.name()), row)
    })
}

fn names(rows: &[(String, &RowResult)]) -> Axis {
    let tick = |(index, (name, _)): (usize, &(String, &RowResult))| {
        (place(rows.len(), index), name.clone())
    };
    Axis {
        title: String::new(),
        range: 0.0..rows.len() as f64,
        ticks: rows.iter().enumerate().map(tick).collect(),
        room: 270,
        grid: false,
    }
}

/// The middle of a row, of which the first is on top.
fn place(rows: usize, index: usize) -> f64 {
    rows as f64 - index as f64 - 0.5
}

fn height(rows: usize) -> u32 {
    rows as u32 * LYING_ROW + 64
}

fn log2(size: u32) -> f64 {
    f64::from(size.max(1)).log2()
}
