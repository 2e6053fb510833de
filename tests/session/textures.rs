//! The host's texture: of any size and format, resized, and on a device that is lost.

use freeguide::session::{Render, Session, SessionOptions, Show};
use freeguide::shape::Extent;
use freeguide::{Error, wgpu};
use wgpu::{TextureFormat, TextureUsages};

use crate::host::{Host, request, sampled};

/// A window that is dragged larger and smaller while its picture forms.
#[test]
fn a_resized_target_changes_nothing() {
    let host = Host::full();
    let model = host.model();
    let mut session = host.session(&model, Some(0.2));
    session.start(&request(4, 6)).unwrap();
    let (mut frame, mut last) = (0, None);
    while !session.progress().finished {
        let size = [8 * (1 + frame % 5), 8 * (1 + frame % 3)];
        let texture = host.texture(size, TextureFormat::Rgba8Unorm, TextureUsages::RENDER_ATTACHMENT);
        let mut encoder = host.encoder();
        session.step(&mut encoder).unwrap();
        session.render_to(&mut encoder, &texture.create_view(&Default::default())).unwrap();
        host.queue.submit([encoder.finish()]);
        host.wait();
        last = Some((texture, size));
        frame += 1;
    }
    let want = sampled(&model, 4, 6);
    assert_eq!(host.picture(&session).pixels, want.pixels);
    // The last frame shows it, at the size that the target then had, in its own proportions.
    let (texture, size) = last.unwrap();
    for (i, texel) in host.read(&texture, 4).chunks(4).enumerate() {
        let want = match fitted([8, 8], size, i) {
            Some([column, row]) => want.pixels[8 * row as usize + column as usize],
            None => 0,
        };
        assert!(texel[0].abs_diff(want) <= 1, "{texel:?} at {i}, expected {want}");
    }
    host.expect_no_complaints();
}

/// Where the middle of a target's texel lies in a picture of (width, height) `own` pixels that is shown as large as it goes in
/// the middle of a target of `size`; none beside it.
fn fitted(own: [usize; 2], size: [u32; 2], texel: usize) -> Option<[f64; 2]> {
    let [width, height] = size.map(|side| side as usize);
    let scale = (width as f64 / own[0] as f64).min(height as f64 / own[1] as f64);
    let at = |texel: usize, side: usize, own: usize| {
        (texel as f64 + 0.5 - (side as f64 - scale * own as f64) / 2.0) / scale
    };
    let place = [at(texel % width, width, own[0]), at(texel / width, height, own[1])];
    (0..2).all(|axis| (0.0..own[axis] as f64).contains(&place[axis])).then_some(place)
}

/// sRGB-encoded bytes to linear light.
fn linear(byte: u8) -> f64 {
    let x = f64::from(byte) / 255.0;
    if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
}

#[test]
fn textures_of_any_size_and_format() {
    let host = Host::full();
    let model = host.model();
    let mut session = host.session(&model, None);
    session.start(&request(5, 4)).unwrap();
    let picture = host.finish(&mut session);
    let (render, store) = (TextureUsages::RENDER_ATTACHMENT, TextureUsages::STORAGE_BINDING);
    // Sizes change between frames, as a window's do.
    for (stretch, (size, usage, format, pixel)) in [false, true].into_iter().flat_map(|stretch| {
        [
            ([16, 16], render, TextureFormat::Rgba8Unorm, 4),
            ([16, 16], render, TextureFormat::Rgba8UnormSrgb, 4),
            ([8, 8], render, TextureFormat::Bgra8UnormSrgb, 4),
            ([77, 33], render, TextureFormat::Bgra8Unorm, 4),
            ([3, 5], render, TextureFormat::R8Unorm, 1),
            ([24, 8], render, TextureFormat::Rgba16Float, 8),
            ([40, 40], store, TextureFormat::Rgba8Unorm, 4),
            ([13, 9], store, TextureFormat::Rgba16Float, 8),
            ([13, 9], store, TextureFormat::Rgba32Float, 16),
            ([13, 9], store, TextureFormat::R32Float, 4),
        ]
        .map(|case| (stretch, case))
    }) {
        let texture = host.texture(size, format, usage);
        let view = texture.create_view(&Default::default());
        let mut encoder = host.encoder();
        session.render(&mut encoder, &view, &Render { stretch, ..Render::default() }).unwrap();
        host.queue.submit([encoder.finish()]);
        let bytes = host.read(&texture, pixel);
        for (i, texel) in bytes.chunks(pixel as usize).enumerate() {
            let [x, y] = [i as u32 % size[0], i as u32 / size[0]];
            let place = match stretch {
                true => {
                    let at = |(at, of)| (f64::from(at) + 0.5) / f64::from(of) * 8.0;
                    Some([(x, size[0]), (y, size[1])].map(at))
                }
                false => fitted([8, 8], size, i),
            };
            // A texel's middle on the border of two pixels, or of the picture, may show either.
            let on_border = |at: &f64| (at - at.round()).abs() < 1e-4;
            if size != [8, 8] && place.is_some_and(|place| place.iter().any(on_border)) {
                continue;
            }
            let byte = place.map_or(0, |[column, row]| picture.pixels[row as usize * 8 + column as usize]);
            let (got, want, allowed) = match format {
                TextureFormat::Rgba16Float => {
                    let half = half::f16::from_le_bytes([texel[0], texel[1]]);
                    (half.to_f64(), linear(byte), 0.01)
                }
                TextureFormat::Rgba32Float | TextureFormat::R32Float => {
                    let whole: [u8; 4] = texel[..4].try_into().unwrap();
                    (f64::from(f32::from_le_bytes(whole)), linear(byte), 0.01)
                }
                // Encoded bytes either way: by the hardware, or as they are. Files truncate, textures round.
                _ => (f64::from(texel[0]), f64::from(byte), 1.01),
            };
            assert!((got - want).abs() <= allowed, "{format:?} {size:?} at {x}, {y}: {got}, expected {want}");
        }
    }
    // An sRGB view of a texture without; linear light where it is asked for; the latent; bilinear.
    let texture = host.device.create_texture(&wgpu::TextureDescriptor {
        label: Some("target"),
        size: wgpu::Extent3d { width: 8, height: 8, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: TextureFormat::Rgba8Unorm,
        usage: render | TextureUsages::COPY_SRC,
        view_formats: &[TextureFormat::Rgba8UnormSrgb],
    });
    let format = Some(TextureFormat::Rgba8UnormSrgb);
    let view = texture.create_view(&wgpu::TextureViewDescriptor { format, ..Default::default() });
    for smooth in [false, true] {
        let mut encoder = host.encoder();
        session
            .render(&mut encoder, &view, &Render { format, smooth, show: Show::Latent, ..Render::default() })
            .unwrap();
        host.queue.submit([encoder.finish()]);
        for (texel, want) in host.read(&texture, 4).chunks(4).zip(&picture.pixels) {
            assert!(texel[0].abs_diff(*want) <= 1, "{texel:?}, expected {want}");
        }
    }
    // What cannot be drawn into is an error with a name.
    let refused = |session: &mut Session, format, usage| {
        let view = host.texture([8, 8], format, usage).create_view(&Default::default());
        session.render_to(&mut host.encoder(), &view).unwrap_err().to_string()
    };
    assert!(refused(&mut session, TextureFormat::Rgba8Uint, render).contains("Rgba8Uint"));
    assert!(refused(&mut session, TextureFormat::R32Uint, store).contains("R32Uint"));
    assert!(
        refused(&mut session, TextureFormat::Rgba8Unorm, TextureUsages::COPY_DST)
            .contains("RENDER_ATTACHMENT")
    );
    host.expect_no_complaints();
}

#[test]
fn a_device_lost_half_way_is_an_error_and_not_a_panic() {
    for budget in [None, Some(0.05)] {
        let (host, other) = (Host::full(), Host::full());
        let model = host.model();
        let mut session = host.session(&model, budget);
        session.start(&request(7, 1)).unwrap();
        // A session of another device of the program, under way too.
        let unharmed = other.model();
        let mut unharmed_session = other.session(&unharmed, budget);
        unharmed_session.start(&request(7, 1)).unwrap();
        let mut encoder = other.encoder();
        unharmed_session.step(&mut encoder).unwrap();
        other.queue.submit([encoder.finish()]);
        let texture = host.texture([16, 16], TextureFormat::Rgba8Unorm, TextureUsages::RENDER_ATTACHMENT);
        let view = texture.create_view(&Default::default());
        let frame = |session: &mut Session| -> freeguide::Result<()> {
            let mut encoder = host.encoder();
            session.step(&mut encoder)?;
            session.render_to(&mut encoder, &view)?;
            let later = session.read(&mut encoder, Show::Picture)?;
            host.queue.submit([encoder.finish()]);
            host.wait();
            pollster::block_on(later).map(drop)
        };
        frame(&mut session).unwrap();
        frame(&mut session).unwrap();
        host.device.destroy();
        let error = frame(&mut session).unwrap_err();
        assert!(matches!(error, Error::Device(_)), "{error}");
        // From then on everything says so.
        assert!(frame(&mut session).is_err());
        session.cancel();
        let _ = session.start(&request(7, 1));
        assert!(frame(&mut session).is_err());
        assert!(Session::new(&host.device, &host.queue, &model, Default::default()).is_err());
        assert_eq!(other.finish(&mut unharmed_session).pixels, sampled(&unharmed, 7, 1).pixels);
        other.expect_no_complaints();
    }
}

/// A session of another size than its network was trained at, in a square window: what the sampler draws, and bars of black.
#[test]
fn pictures_that_are_not_square_keep_their_proportions() {
    let host = Host::full();
    let model = host.model();
    let size = Some(Extent::Plane { height: 8, width: 16 });
    let options = SessionOptions { size, ..SessionOptions::default() };
    let mut session = Session::new(&host.device, &host.queue, &model, options).unwrap();
    session.start(&request(5, 4)).unwrap();
    let picture = host.finish(&mut session);
    assert_eq!((picture.width, picture.height), (16, 8));
    let texture = host.texture([32, 32], TextureFormat::Rgba8Unorm, TextureUsages::RENDER_ATTACHMENT);
    let mut encoder = host.encoder();
    session.render_to(&mut encoder, &texture.create_view(&Default::default())).unwrap();
    host.queue.submit([encoder.finish()]);
    for (i, texel) in host.read(&texture, 4).chunks(4).enumerate() {
        let place = fitted([16, 8], [32, 32], i);
        assert_eq!(place.is_some(), (8..24).contains(&(i / 32)), "{i}");
        let want = place.map_or(0, |[column, row]| picture.pixels[16 * row as usize + column as usize]);
        assert!(texel[0].abs_diff(want) <= 1, "{texel:?} at {i}, expected {want}");
    }
    let odd = SessionOptions { size: Some(Extent::square(9)), ..SessionOptions::default() };
    let error = Session::new(&host.device, &host.queue, &model, odd).err().unwrap().to_string();
    assert!(error.contains("`size`: 9x9") && error.contains("multiples of 2"), "{error}");
    host.expect_no_complaints();
}
