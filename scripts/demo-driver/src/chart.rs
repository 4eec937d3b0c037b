// SPDX-License-Identifier: GPL-2.0

//! What all charts have in common: axes, colours that the page's style replaces, marks.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter},
    },
    element::{Drawable, PointCollection},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// Colours by meaning. They stand for variables of the page's style, which knows them by these
/// values, so that the page can be light or dark.
pub mod colour {
    use plotters::style::RGBColor;

    /// Text and axes.
    pub const INK: RGBColor = RGBColor(1, 1, 1);
    /// Lines of the grid.
    pub const GRID: RGBColor = RGBColor(2, 2, 2);
    /// Without the module.
    pub const NETFRONT: RGBColor = RGBColor(3, 3, 3);
    /// With it.
    pub const XENVMC: RGBColor = RGBColor(4, 4, 4);
    /// TCP inside one guest.
    pub const LOOPBACK: RGBColor = RGBColor(5, 5, 5);
    /// Reading `/dev/zero`.
    pub const ZERO: RGBColor = RGBColor(6, 6, 6);
    /// Copying memory.
    pub const MEMCPY: RGBColor = RGBColor(7, 7, 7);
    /// Dom0.
    pub const DOM0: RGBColor = RGBColor(8, 8, 8);
    /// The client's guest.
    pub const CLIENT: RGBColor = RGBColor(9, 9, 9);
    /// The server's guest.
    pub const SERVER: RGBColor = RGBColor(10, 10, 10);
    /// A goal.
    pub const GOAL: RGBColor = RGBColor(11, 11, 11);
}

/// Width of a chart in pixels.
const WIDTH: u32 = 860;

type Context<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Scale, Scale>>;

/// One axis of a chart.
pub struct Axis {
    /// What it shows.
    pub title: String,
    /// From where to where.
    pub range: Range<f64>,
    /// Where it has labels, and which.
    pub ticks: Vec<(f64, String)>,
    /// Pixels for its labels.
    pub room: u32,
    /// Whether a line goes through the chart at each label.
    pub grid: bool,
}

impl Axis {
    /// A logarithmic axis of whole decades that holds all values; see [`log`].
    pub fn decades(title: &str, values: impl Iterator<Item = f64>, room: u32) -> Self {
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .fold((f64::MAX, f64::MIN), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        let (low, high) = if low <= high {
            (log(low).floor(), log(high * 1.2).ceil())
        } else {
            (0.0, 1.0)
        };
        let ticks = (low as i32..=high as i32).map(|power| {
            let value = 10_f64.powi(power);
            let text = if power < 0 {
                value.to_string()
            } else {
                thousands(value)
            };
            (f64::from(power), text)
        });
        Self {
            title: title.to_owned(),
            range: low..high,
            ticks: ticks.collect(),
            room,
            grid: true,
        }
    }

    /// A logarithmic axis of ratios that holds all values, with labels at 1, 2, 5, 10 and so on.
    pub fn ratios(title: &str, values: impl Iterator<Item = f64>, room: u32) -> Self {
        let (low, high) = values.fold((1.0, 1.0), |(low, high): (f64, f64), value| {
            (low.min(value), high.max(value))
        });
        let steps = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
        ];
        let from = steps
            .iter()
            .rfind(|step| **step < low)
            .copied()
            .unwrap_or(0.1);
        let to = steps
            .iter()
            .find(|step| **step > high)
            .copied()
            .unwrap_or(high);
        let ticks = steps.iter().filter(|step| (from..=to).contains(*step));
        Self {
            title: title.to_owned(),
            range: log(from)..log(to),
            ticks: ticks.map(|&step| (log(step), format!("{step}×"))).collect(),
            room,
            grid: true,
        }
    }

    fn scale(&self) -> Scale {
        Scale {
            range: self.range.clone(),
            ticks: self.ticks.clone(),
        }
    }
}

/// Where a value is on a logarithmic axis.
pub fn log(value: f64) -> f64 {
    value.max(1e-9).log10()
}

/// The plotting crate's view of an [`Axis`].
struct Scale {
    range: Range<f64>,
    ticks: Vec<(f64, String)>,
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _hint: H) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| at == value);
        tick.map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

/// A chart that is being drawn.
pub struct Chart<'a>(Context<'a>);

/// Draws a chart of this height in pixels and returns it as SVG.
///
/// # Errors
///
/// The plotting crate refuses.
pub fn svg(
    height: u32,
    x: &Axis,
    y: &Axis,
    marks: impl FnOnce(&mut Chart<'_>) -> Result<()>,
) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        let mut chart = Chart(axes(&root, x, y)?);
        marks(&mut chart)?;
        root.present().map_err(|error| anyhow!("{error}"))?;
    }
    // It shall be as wide as the page.
    let size = format!("<svg width=\"{WIDTH}\" height=\"{height}\"");
    Ok(text.replace(&size, "<svg role=\"img\""))
}

fn axes<'a>(root: &DrawingArea<SVGBackend<'a>, Shift>, x: &Axis, y: &Axis) -> Result<Context<'a>> {
    let mut chart = ChartBuilder::on(root)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(x.room)
        .y_label_area_size(y.room)
        .build_cartesian_2d(x.scale(), y.scale())
        .map_err(|error| anyhow!("{error}"))?;
    let mut mesh = chart.configure_mesh();
    mesh.x_labels(x.ticks.len().max(1))
        .y_labels(y.ticks.len().max(1))
        .x_desc(x.title.as_str())
        .y_desc(y.title.as_str())
        .label_style(style(15, &colour::INK))
        .axis_desc_style(style(15, &colour::INK))
        .axis_style(colour::GRID)
        .bold_line_style(colour::GRID)
        .light_line_style(TRANSPARENT);
    if !x.grid {
        mesh.disable_x_mesh();
    }
    if !y.grid {
        mesh.disable_y_mesh();
    }
    mesh.draw().map_err(|error| anyhow!("{error}"))?;
    Ok(chart)
}

fn style(size: u32, colour: &RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(colour)
}

impl<'a> Chart<'a> {
    /// A line through points.
    ///
    /// # Errors
    ///
    /// The plotting crate refuses.
    pub fn line(&mut self, points: &[(f64, f64)], colour: RGBColor, is_main: bool) -> Result<()> {
        let style = colour.stroke_width(if is_main { 3 } else { 1 });
        let line = LineSeries::new(points.iter().copied(), style);
        self.0
            .draw_series(line)
            .map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }

    /// A filled rectangle between two corners.
    ///
    /// # Errors
    ///
    /// The plotting crate refuses.
    pub fn bar(&mut self, from: (f64, f64), to: (f64, f64), colour: RGBColor) -> Result<()> {
        self.put(Rectangle::new([from, to], colour.filled()))
    }

    /// A dot: one run.
    ///
    /// # Errors
    ///
    /// The plotting crate refuses.
    pub fn dot(&mut self, at: (f64, f64), colour: RGBColor) -> Result<()> {
        self.put(Circle::new(at, 4, colour.filled()))?;
        self.put(Circle::new(at, 4, colour::INK.stroke_width(1)))
    }

    /// Text above a point.
    ///
    /// # Errors
    ///
    /// The plotting crate refuses.
    pub fn above(&mut self, at: (f64, f64), text: String, colour: RGBColor) -> Result<()> {
        let style = style(16, &colour).pos(Pos::new(HPos::Center, VPos::Bottom));
        self.put(EmptyElement::at(at) + Text::new(text, (0, -9), style))
    }

    /// Text to the right of a point.
    ///
    /// # Errors
    ///
    /// The plotting crate refuses.
    pub fn right(&mut self, at: (f64, f64), text: String, colour: RGBColor) -> Result<()> {
        let style = style(16, &colour).pos(Pos::new(HPos::Left, VPos::Center));
        self.put(EmptyElement::at(at) + Text::new(text, (8, 0), style))
    }

    fn put<E>(&mut self, element: E) -> Result<()>
    where
        for<'b> &'b E: PointCollection<'b, (f64, f64)>,
        E: Drawable<SVGBackend<'a>>,
    {
        self.0
            .draw_series([element])
            .map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }
}

/// A whole number with a space between thousands.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_hold_the_values() {
        let axis = Axis::decades("", [3.0, 250.0].into_iter(), 10);
        assert_eq!(axis.range, 0.0..3.0);
        assert_eq!(axis.scale().format_ext(&3.0), "1\u{202f}000");
    }
}
