// SPDX-License-Identifier: GPL-2.0

//! Throughput over time as a picture: panels one below the other, with one axis of time.

use std::fmt::Write;

/// Pixels.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 70.0;
const HEIGHT: f64 = 110.0;
const GAP: f64 = 34.0;
const BOTTOM: f64 = 40.0;

/// One panel.
pub(crate) struct Panel<'a> {
    pub(crate) title: String,
    pub(crate) period_ms: u64,
    /// Bytes that came in each period.
    pub(crate) bytes: &'a [u64],
    /// Drawn in another colour.
    pub(crate) is_accented: bool,
}

impl Panel<'_> {
    fn seconds(&self) -> f64 {
        (self.bytes.len() as u64 * self.period_ms) as f64 / 1000.0
    }

    /// The rate in a period, MB/s.
    fn rate(&self, bytes: u64) -> f64 {
        bytes as f64 / (self.period_ms.max(1) * 1000) as f64
    }
}

/// The picture, as SVG.
pub(crate) fn panels(panels: &[Panel<'_>]) -> String {
    let seconds = panels.iter().map(Panel::seconds).fold(1.0, f64::max);
    let step = (WIDTH - LEFT) / seconds;
    let height = panels.len() as f64 * (HEIGHT + GAP) + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let top = index as f64 * (HEIGHT + GAP) + GAP;
        draw(&mut svg, panel, top, step);
    }
    let base = height - BOTTOM + 16.0;
    for second in (0..=seconds as u32).step_by(5) {
        let x = LEFT + f64::from(second) * step;
        // To a string, which does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{base}\" text-anchor=\"middle\">{second} s</text>"
        );
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, panel: &Panel<'_>, top: f64, step: f64) {
    let bottom = top + HEIGHT;
    let most = panel.bytes.iter().copied().max().unwrap_or(0);
    let most = panel.rate(most).max(0.001);
    let width = step * panel.period_ms as f64 / 1000.0;
    let mut path = format!("M{LEFT} {bottom}");
    for (index, bytes) in panel.bytes.iter().enumerate() {
        let x = LEFT + index as f64 * width;
        let y = bottom - panel.rate(*bytes) / most * HEIGHT;
        let _ = write!(path, "V{y:.1}H{:.1}", x + width);
    }
    let _ = write!(path, "V{bottom}Z");
    let colour = if panel.is_accented {
        "#1f6fb4"
    } else {
        "#8a8a8a"
    };
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.0}\">{}</text>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{most:.1} MB/s</text>\n\
         <text x=\"{:.0}\" y=\"{bottom:.0}\" text-anchor=\"end\">0</text>\n\
         <path d=\"{path}\" fill=\"{colour}\"/>\n\
         <line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"#444\"/>",
        top - 8.0,
        panel.title,
        LEFT - 6.0,
        top + 10.0,
        LEFT - 6.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_on_the_axis() {
        let panel = Panel {
            title: String::new(),
            period_ms: 500,
            bytes: &[1_000_000, 0],
            is_accented: false,
        };
        let svg = panels(&[panel]);
        let (top, bottom) = (GAP, GAP + HEIGHT);
        let middle = LEFT + (WIDTH - LEFT) / 2.0;
        let path =
            format!("M{LEFT} {bottom}V{top:.1}H{middle:.1}V{bottom:.1}H{WIDTH:.1}V{bottom}Z");
        assert!(svg.contains(&path), "{path} is not in {svg}");
    }
}
