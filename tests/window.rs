//! The programs with windows, on a display in memory (Xvfb): what stands on the screen is the library's picture.
//!
//! `.ci/programs window` installs what it needs and runs it. The screen is left as a PNG in `target/tmp`.

#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::program::freeguide;
use freeguide::data::Image;
use freeguide::diffusion::Guidance;
use freeguide::io::write_png;
use freeguide::model::Model;
use freeguide::sample::{Request, Sampler, SamplerOptions};
use freeguide::tensor::Precision;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A display whose memory is a file.
struct Display {
    name: String,
    folder: tempfile::TempDir,
    _server: Running,
}

impl Display {
    fn new() -> Display {
        let folder = tempfile::tempdir().unwrap();
        let server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-fbdir"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb starts; on Debian it is in the package xvfb");
        let mut server = Running(server);
        let mut number = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut number).unwrap();
        assert!(!number.trim().is_empty(), "Xvfb found no display to be");
        Display { name: format!(":{}", number.trim()), folder, _server: server }
    }

    fn run(&self, mut command: Command) -> Running {
        command.env("DISPLAY", &self.name).env_remove("WAYLAND_DISPLAY").env_remove("WAYLAND_SOCKET");
        Running(command.spawn().expect("the program starts"))
    }

    /// The screen as it is now: Xvfb keeps it in the format of `xwd`, a header of big-endian words, colours, then rows.
    fn screen(&self) -> Image {
        let bytes = std::fs::read(self.folder.path().join("Xvfb_screen0")).unwrap();
        let word = |at: usize| u32::from_be_bytes(bytes[4 * at..4 * at + 4].try_into().unwrap()) as usize;
        let (header, width, height, stride, colours) = (word(0), word(4), word(5), word(12), word(19));
        assert_eq!((word(1), word(11), word(14)), (7, 32, 0xff_0000), "the format of the screen");
        let rows = bytes[header + 12 * colours..].chunks(stride).take(height);
        let pixels =
            rows.flat_map(|row| row[..4 * width].chunks(4).flat_map(|bgrx| [bgrx[2], bgrx[1], bgrx[0]]));
        Image::new(width, height, 3, pixels.collect()).unwrap()
    }
}

const CLASS: u32 = 7;
const WEIGHT: f64 = 2.0;
const SEED: u64 = 1;

/// What the library makes of the request without any window, in the model's steps or other ones.
fn wanted(steps: Option<usize>) -> Image {
    let gpu = common::gpu();
    let model = Model::digits(&gpu).unwrap();
    let dtype = Precision::Auto.on(gpu.capabilities()).dtype();
    let steps = steps.unwrap_or(model.config.sampling.steps);
    let options = SamplerOptions { steps, dtype, ..SamplerOptions::of(&model.config, 1).unwrap() };
    let sampler = Sampler::of(&gpu, &model, options).unwrap();
    let request = Request::new(Some(CLASS), SEED);
    sampler.sample(&[request], Guidance::from_weight(WEIGHT).unwrap(), || Ok(())).unwrap().remove(0)
}

/// Whether the square of `scale` pixels of the screen for each of the picture's, from (x, y) on, is the picture, looked at
/// every `every` pixels. Files truncate values, textures round them.
fn is_at(screen: &Image, picture: &Image, [x, y]: [usize; 2], scale: usize, every: usize) -> bool {
    let side = picture.width * scale;
    let from = every / 2;
    (from..side).step_by(every).all(|row| {
        (from..side).step_by(every).all(|column| {
            let want = picture.pixels[row / scale * picture.width + column / scale];
            let at = 3 * ((y + row) * screen.width + x + column);
            screen.pixels[at..at + 3].iter().all(|got| got.abs_diff(want) <= 1)
        })
    })
}

/// Where on the screen the picture stands, every pixel of it, and how large its pixels are: at least 16.
fn find(screen: &Image, picture: &Image) -> Option<([usize; 2], usize)> {
    let largest = screen.height / picture.height;
    (16..=largest).rev().find_map(|scale| {
        let side = picture.width * scale;
        let places = (0..=screen.height - side).flat_map(|y| (0..=screen.width - side).map(move |x| [x, y]));
        // The middles of its pixels first.
        let mut found = places.filter(|place| is_at(screen, picture, *place, scale, scale));
        found.find(|place| is_at(screen, picture, *place, scale, 1)).map(|place| (place, scale))
    })
}

/// Waits until the picture stands on the screen, and looks again a second later: it is finished.
fn expect_on_screen(display: &Display, program: &mut Running, picture: &Image, name: &str) {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let begun = Instant::now();
    loop {
        let screen = display.screen();
        let found = find(&screen, picture);
        write_png(&out, &screen, &[]).unwrap();
        if let Some((place, scale)) = found {
            std::thread::sleep(Duration::from_secs(1));
            assert!(
                is_at(&display.screen(), picture, place, scale, 1),
                "it changed after it had been finished"
            );
            write_png(&out, &display.screen(), &[]).unwrap();
            return;
        }
        let ended = program.0.try_wait().unwrap();
        assert!(ended.is_none(), "{name}: the program ended: {ended:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(240),
            "{name}: the picture does not stand on the screen: {}",
            out.display()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_demo_shows_the_librarys_picture() {
    let (display, picture) = (Display::new(), wanted(Some(16)));
    assert!(find(&display.screen(), &picture).is_none(), "an empty screen");
    let mut command = freeguide();
    let (class, weight, seed) = (CLASS.to_string(), WEIGHT.to_string(), SEED.to_string());
    command.args(["demo", "--class", &class, "--w", &weight, "--seed", &seed, "--steps", "16"]);
    let mut program = display.run(command);
    expect_on_screen(&display, &mut program, &picture, "window-demo.png");
}

/// Its picture is the whole window.
#[test]
fn the_winit_example_shows_it_too() {
    let (display, picture) = (Display::new(), wanted(None));
    let example = Path::new(env!("CARGO_BIN_EXE_freeguide")).with_file_name("examples").join("winit");
    assert!(example.exists(), "no {}: cargo build --features demo --examples", example.display());
    let mut program = display.run(Command::new(example));
    expect_on_screen(&display, &mut program, &picture, "window-winit.png");
}

#[test]
fn a_demo_that_cannot_be_says_why() {
    let display = Display::new();
    for (arguments, shown, part) in [
        (&["demo"][..], "", "error: no window: "),
        (&["demo", "--class", "99"], display.name.as_str(), "there is no class \"99\""),
        (&["demo", "--model", "nowhere"], display.name.as_str(), "nowhere"),
        (&["demo", "--budget", "0"], display.name.as_str(), "budget of 0 ms"),
    ] {
        let mut command = freeguide();
        command
            .args(arguments)
            .env("DISPLAY", shown)
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("WAYLAND_SOCKET");
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part) && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}
