//! The host's texture: of any size and format, resized, and on a device that is lost.

use freeguide::session::{Render, Session, Show};
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
    // The last frame shows it, at the size that the target then had.
    let (texture, [width, height]) = last.unwrap();
    for (i, texel) in host.read(&texture, 4).chunks(4).enumerate() {
        let [x, y] = [i as u32 % width * 8 / width, i as u32 / width * 8 / height];
        let want = want.pixels[(8 * y + x) as usize];
        assert!(texel[0].abs_diff(want) <= 1, "{texel:?} at {i}, expected {want}");
    }
    host.expect_no_complaints();
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
    for (size, usage, format, pixel) in [
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
    ] {
        let texture = host.texture(size, format, usage);
        let view = texture.create_view(&Default::default());
        let mut encoder = host.encoder();
        session.render_to(&mut encoder, &view).unwrap();
        host.queue.submit([encoder.finish()]);
        let bytes = host.read(&texture, pixel);
        for (i, texel) in bytes.chunks(pixel as usize).enumerate() {
            let [x, y] = [i as u32 % size[0], i as u32 / size[0]];
            let [column, row] =
                [(x, size[0]), (y, size[1])].map(|(at, of)| (f64::from(at) + 0.5) / f64::from(of) * 8.0);
            // A texel's middle on the border of two pixels may show either.
            if size != [8, 8] && (column.fract() == 0.0 || row.fract() == 0.0) {
                continue;
            }
            let byte = picture.pixels[row as usize * 8 + column as usize];
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
            .render(&mut encoder, &view, &Render { format, smooth, show: Show::Latent, linear_light: None })
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
