//! One table of everything measured, and its history.

use std::fmt::Write as _;
use std::path::Path;

use crate::ceilings;
use crate::harness::Bench;
use crate::row::Row;

/// Prints the table and, where asked to, keeps it.
pub fn finish(bench: &Bench, rows: Vec<Row>) {
    let ceilings = ceilings::of(bench, &rows);
    let shares: Vec<Option<f64>> = rows.iter().map(|row| Some(row.rate().0 / ceilings.of(row)?)).collect();
    println!("{}", table(bench, &rows, &shares));
    if std::env::var("FREEGUIDE_BENCH_RECORD").is_ok_and(|value| value == "1") {
        record(&bench.gpu.capabilities().name, &rows, &shares).expect("the results' file can be written");
    }
}

fn table(bench: &Bench, rows: &[Row], shares: &[Option<f64>]) -> String {
    let capabilities = bench.gpu.capabilities();
    let clock = if capabilities.timestamps { "GPU timestamps" } else { "wall clock around submit and wait" };
    let width = |cell: fn(&Row) -> usize| rows.iter().map(cell).max().unwrap_or(0);
    let (bench, shape) = (width(|row| row.bench.chars().count()), width(|row| row.shape.chars().count()));
    let mut text = format!("\n{} ({:?}), {clock}, medians\n\n", capabilities.name, capabilities.backend);
    let head = ("benchmark", "shape", "time", "rate", "share");
    let _ = writeln!(
        text,
        "{:bench$}  {:shape$}  {:>10}  {:>16}  {:>6}  variant",
        head.0, head.1, head.2, head.3, head.4
    );
    for (row, share) in rows.iter().zip(shares) {
        let (rate, unit) = match row.rate() {
            (rate, "TFLOP/s") if rate < 1.0 => (rate * 1e3, "GFLOP/s"),
            rate => rate,
        };
        let share = share.map_or("-".to_owned(), |share| format!("{:.1}%", share * 100.0));
        let _ = writeln!(
            text,
            "{:bench$}  {:shape$}  {:>10}  {:>7} {unit:8}  {share:>6}  {}",
            row.bench,
            row.shape,
            duration(row.seconds),
            significant(rate),
            row.rung
        );
    }
    text
}

/// Three digits, and a unit that fits.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{} {unit}", significant(value))
}

fn significant(value: f64) -> String {
    let digits = (2 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 5) as usize;
    format!("{value:.digits$}")
}

/// Appends to the adapter's file; what was measured before stays.
fn record(adapter: &str, rows: &[Row], shares: &[Option<f64>]) -> std::io::Result<()> {
    let words = adapter.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.map(str::to_lowercase).collect::<Vec<_>>().join("-");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results").join(format!("{slug}.csv"));
    std::fs::create_dir_all(path.parent().expect("it has a folder"))?;
    let mut text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) => "date,bench,shape,rung,median_seconds,rate,unit,share\n".to_owned(),
    };
    let date = std::env::var("FREEGUIDE_BENCH_DATE").unwrap_or_default();
    for (row, share) in rows.iter().zip(shares) {
        let Row { bench, shape, rung, seconds, .. } = row;
        let (rate, unit) = row.rate();
        let share = share.map_or(String::new(), |share| format!("{share:.4}"));
        let _ = writeln!(
            text,
            "{date},{bench},\"{shape}\",\"{rung}\",{seconds:.4e},{},{unit},{share}",
            significant(rate)
        );
    }
    std::fs::write(&path, text)?;
    println!("{} rows appended to {}", rows.len(), path.display());
    Ok(())
}
