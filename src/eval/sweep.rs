//! What a sweep over guidance weights measured: its CSV, and its table in the form of tables 1 and 2 of the CFG paper.

use std::fmt::Write as _;

use super::Report;
use crate::error::{Error, Result};

/// The first line of the CSV.
pub const HEADER: &str = "model,p_uncond,steps,w,guidance_scale,pictures,fid,sfid,inception_score,\
                          inception_score_deviation,kid,precision,recall,agreement";

/// One measured point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The model's name.
    pub model: String,
    /// The probability with which its labels were dropped.
    pub unconditional_probability: f64,
    /// Denoising steps T.
    pub steps: usize,
    /// w.
    pub weight: f64,
    /// Pictures measured.
    pub pictures: usize,
    /// FID, sFID, inception score, its deviation, KID, precision, recall, agreement; nothing where it was not measured.
    pub values: [Option<f64>; 8],
}

/// A model's name as a field of the CSV and of the table: a comma or a bar would end it.
pub fn in_table(name: &str) -> String {
    name.replace([',', '"', '\n', '\r', '|'], "_")
}

/// Places in [`Point::values`].
const FID: usize = 0;
const SCORE: usize = 2;

impl Point {
    /// A point of a report.
    pub fn new(
        model: &str,
        unconditional_probability: f64,
        steps: usize,
        weight: f64,
        report: &Report,
    ) -> Self {
        let model = in_table(model);
        let values = [
            Some(report.fid),
            report.sfid,
            Some(report.inception_score),
            report.inception_score_deviation,
            report.kid,
            report.precision,
            report.recall,
            report.agreement,
        ];
        Point { model, unconditional_probability, steps, weight, pictures: report.pictures, values }
    }

    /// FID.
    pub fn fid(&self) -> f64 {
        self.values[FID].unwrap_or(f64::NAN)
    }

    /// The inception score.
    pub fn inception_score(&self) -> f64 {
        self.values[SCORE].unwrap_or(f64::NAN)
    }

    fn line(&self) -> String {
        let Point { model, unconditional_probability, steps, weight, pictures, values } = self;
        let mut line =
            format!("{model},{unconditional_probability},{steps},{weight},{},{pictures}", 1.0 + weight);
        for value in values {
            // Nine digits: enough to compare, and the same text for the same number.
            write!(line, ",{}", value.map_or_else(String::new, |value| format!("{value:.9}")))
                .expect("a string");
        }
        line
    }

    fn parse(line: &str) -> Option<Point> {
        let fields: Vec<&str> = line.split(',').collect();
        let &[model, p, steps, weight, _, pictures, ref values @ ..] = &fields[..] else { return None };
        let values: Vec<Option<f64>> = values
            .iter()
            .map(|text| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) })
            .collect::<Option<_>>()?;
        Some(Point {
            model: model.to_owned(),
            unconditional_probability: p.parse().ok()?,
            steps: steps.parse().ok()?,
            weight: weight.parse().ok()?,
            pictures: pictures.parse().ok()?,
            values: values.try_into().ok()?,
        })
    }
}

/// The CSV of some points.
pub fn to_csv(points: &[Point]) -> String {
    let lines = points.iter().map(|point| point.line() + "\n");
    format!("{HEADER}\n{}", lines.collect::<String>())
}

/// The points of a CSV.
///
/// # Errors
/// [`Error::Config`] when it is of another program or version.
pub fn from_csv(text: &str) -> Result<Vec<Point>> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(Error::Config(format!("it does not begin with {HEADER:?}")));
    }
    let point = |line: &str| {
        Point::parse(line).ok_or_else(|| Error::Config(format!("{line:?} is no point of a sweep")))
    };
    lines.map(point).collect()
}

/// Points of one model and one number of steps, in the order in which they came, under a name that tells them apart.
pub fn series(points: &[Point]) -> Vec<(String, Vec<&Point>)> {
    let mut all: Vec<(&str, f64, usize, Vec<&Point>)> = Vec::new();
    for point in points {
        let found =
            all.iter_mut().find(|(model, _, steps, _)| *model == point.model && *steps == point.steps);
        match found {
            Some((.., points)) => points.push(point),
            None => all.push((&point.model, point.unconditional_probability, point.steps, vec![point])),
        }
    }
    let differ = |of: &dyn Fn(&Point) -> String| points.iter().any(|point| of(point) != of(&points[0]));
    let dropped = differ(&|point| point.unconditional_probability.to_string());
    let models = differ(&|point| point.model.clone()) && !dropped;
    let steps = differ(&|point| point.steps.to_string());
    all.into_iter()
        .map(|(model, p, t, points)| {
            let parts = [
                dropped.then(|| format!("p_uncond = {p}")),
                models.then(|| model.to_owned()),
                (steps || !(dropped || models)).then(|| format!("T = {t}")),
            ];
            (parts.into_iter().flatten().collect::<Vec<_>>().join(", "), points)
        })
        .collect()
}

/// The table of the CFG paper: a row for each w, FID and inception score of each series, the best of a column bold.
pub fn to_table(points: &[Point]) -> String {
    let series = series(points);
    let mut weights: Vec<f64> = points.iter().map(|point| point.weight).collect();
    weights.sort_by(f64::total_cmp);
    weights.dedup();
    let heads = |what: &str| series.iter().map(|(name, _)| format!(" {what} ({name}) |")).collect::<String>();
    let rule = "---|".repeat(1 + 2 * series.len());
    let mut table = format!("| w |{}{}\n|{rule}\n", heads("FID"), heads("IS"));
    type Of = fn(&Point) -> f64;
    let (fid, score): (Of, Of) = (Point::fid, Point::inception_score);
    for weight in weights {
        write!(table, "| {weight} |").expect("a string");
        // The least FID and the greatest score are the best.
        for (of, sign) in [(fid, 1.0), (score, -1.0)] {
            for (_, points) in &series {
                let best = points.iter().map(|point| sign * of(point)).fold(f64::INFINITY, f64::min);
                let cell =
                    points.iter().find(|point| point.weight == weight).map_or(String::new(), |point| {
                        let text = format!("{:.3}", of(point));
                        if sign * of(point) == best { format!("**{text}**") } else { text }
                    });
                write!(table, " {cell} |").expect("a string");
            }
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(model: &str, p: f64, steps: usize, weight: f64, fid: f64, score: f64) -> Point {
        let values = [Some(fid), None, Some(score), Some(0.0), None, Some(0.5), Some(0.25), None];
        Point { model: model.into(), unconditional_probability: p, steps, weight, pictures: 100, values }
    }

    #[test]
    fn points_come_back_from_their_csv() {
        let points = [point("a", 0.1, 128, -0.5, 3.25, 7.5), point("b", 0.2, 256, 4.0, 1e-3, 10.0)];
        let text = to_csv(&points);
        assert_eq!(from_csv(&text).unwrap(), points);
        assert_eq!(text.lines().nth(1).unwrap().split(',').count(), HEADER.split(',').count());
        assert!(from_csv("w,guidance_scale,steps\n").unwrap_err().to_string().contains("begin"));
        assert!(from_csv(&format!("{HEADER}\na,0.1,128\n")).unwrap_err().to_string().contains("a,0.1,128"));
    }

    #[test]
    fn series_are_named_by_what_differs() {
        let names = |points: &[Point]| series(points).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let by_steps = [point("a", 0.1, 128, 0.0, 1.0, 1.0), point("a", 0.1, 256, 0.0, 1.0, 1.0)];
        assert_eq!(names(&by_steps), ["T = 128", "T = 256"]);
        let by_drop = [point("a", 0.1, 128, 0.0, 1.0, 1.0), point("b", 0.2, 128, 0.0, 1.0, 1.0)];
        assert_eq!(names(&by_drop), ["p_uncond = 0.1", "p_uncond = 0.2"]);
        let by_model = [point("a", 0.1, 128, 0.0, 1.0, 1.0), point("b", 0.1, 128, 0.0, 1.0, 1.0)];
        assert_eq!(names(&by_model), ["a", "b"]);
        assert_eq!(names(&by_steps[..1]), ["T = 128"]);
    }

    #[test]
    fn the_table_is_that_of_the_paper() {
        let points = [
            point("a", 0.1, 128, 0.0, 2.0, 5.0),
            point("a", 0.1, 128, 0.5, 1.5, 6.0),
            point("a", 0.1, 256, 0.0, 1.0, 7.0),
        ];
        let want = "| w | FID (T = 128) | FID (T = 256) | IS (T = 128) | IS (T = 256) |\n|---|---|---|---|---|\n\
                    | 0 | 2.000 | **1.000** | 5.000 | **7.000** |\n| 0.5 | **1.500** |  | **6.000** |  |\n";
        assert_eq!(to_table(&points), want);
    }
}
