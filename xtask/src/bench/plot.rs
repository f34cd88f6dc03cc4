//! A plot as SVG: both axes logarithmic, one line a subject, readable on light and on dark.

use std::fmt::Write as _;

/// One line of a plot.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Left, right, top, bottom.
const MARGINS: [f64; 4] = [56.0, 140.0, 40.0, 44.0];
const COLOURS: [&str; 6] = ["#808080", "#d95f02", "#e7298a", "#7570b3", "#66a61e", "#1b9e77"];

/// Draws lines over the number of `what`.
pub(super) fn plot(title: &str, what: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let ends = |values: Vec<f64>| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min).log10();
        let most = values.iter().copied().fold(0.0, f64::max).log10();
        (least, most.max(least + 0.01))
    };
    let (x0, x1) = ends(all().map(|point| point.0).collect());
    let (y0, y1) = ends(all().map(|point| point.1).collect());
    let (y0, y1) = ((y0 - 0.1).max(0.0), y1 + 0.1);
    let [left, right, top, bottom] = MARGINS;
    let x = |value: f64| left + (value.log10() - x0) / (x1 - x0) * (WIDTH - left - right);
    let y = |value: f64| HEIGHT - bottom - (value.log10() - y0) / (y1 - y0) * (HEIGHT - top - bottom);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>text {{ fill: #24292f }} .grid {{ stroke: #8c959f; stroke-opacity: .35 }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #c9d1d9 }} }}</style>\n\
         <text x=\"{left}\" y=\"22\" font-size=\"14\">{title}</text>\n"
    );
    let mut add = |line: String| writeln!(svg, "{line}").expect("text takes everything");
    for value in steps(x0, x1, &[1.0]) {
        let at = x(value);
        add(format!("<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{:.1}\"/>", HEIGHT - bottom));
        add(format!("<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>", HEIGHT - bottom + 18.0));
    }
    add(format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{what}</text>",
        f64::midpoint(left, WIDTH - right),
        HEIGHT - 8.0
    ));
    for value in steps(y0, y1, &[1.0, 2.0, 5.0]) {
        let at = y(value);
        add(format!("<line class=\"grid\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - right));
        add(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", left - 8.0, at + 4.0));
    }
    // Names that would cover each other move down.
    let mut names: Vec<(f64, usize)> =
        lines.iter().enumerate().filter_map(|(i, line)| Some((y(line.points.last()?.1), i))).collect();
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = f64::NEG_INFINITY;
    for (at, i) in names {
        let (line, colour) = (&lines[i], COLOURS[i % COLOURS.len()]);
        let points: Vec<String> = line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        add(format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        ));
        for (a, b) in &line.points {
            add(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*a), y(*b)));
        }
        lowest = (at + 4.0).max(lowest + 14.0);
        let end = line.points.last().map_or(left, |point| x(point.0));
        add(format!("<text x=\"{:.1}\" y=\"{lowest:.1}\" style=\"fill: {colour}\">{}</text>", end + 10.0, line.name));
    }
    svg + "</svg>\n"
}

/// Round numbers between two powers of ten.
fn steps(from: f64, to: f64, of: &[f64]) -> Vec<f64> {
    let decades = from.floor() as i32..=to.ceil() as i32;
    let all = decades.flat_map(|decade| of.iter().map(move |step| step * 10_f64.powi(decade)));
    all.filter(|value| (from - 1e-9..=to + 1e-9).contains(&value.log10())).collect()
}

/// Three digits, or whole.
pub(super) fn number(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}
