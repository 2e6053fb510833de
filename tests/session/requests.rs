//! Requests: on small devices, beside each other, given up, and many.

use freeguide::gpu::Gpu;
use freeguide::model::Model;
use freeguide::session::{Session, Show};
use freeguide::{Error, wgpu};
use wgpu::{TextureFormat, TextureUsages};

use crate::host::{Host, request, sampled};

#[test]
fn default_limits_give_the_same_picture() {
    let [full, plain] = [Host::full(), Host::plain()].map(|host| {
        let model = host.model();
        let mut session = host.session(&model, Some(4.0));
        session.start(&request(7, 1)).unwrap();
        let picture = host.finish(&mut session);
        assert_eq!(picture.pixels, sampled(&model, 7, 1).pixels);
        host.expect_no_complaints();
        picture
    });
    let worst = full.pixels.iter().zip(&plain.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 2, "{worst}");
}

/// Downlevel devices have fewer storage buffers a stage than a step takes: an error that says so, or it works.
#[test]
fn downlevel_defaults_work_or_say_why_not() {
    let host = Host::new(|_| wgpu::Features::empty(), |_| wgpu::Limits::downlevel_defaults());
    let made = Model::digits(&Gpu::from_device(&host.device, &host.queue)).and_then(|model| {
        let mut session = Session::new(&host.device, &host.queue, &model, Default::default())?;
        session.start(&request(7, 1))?;
        assert_eq!(host.finish(&mut session).pixels, sampled(&model, 7, 1).pixels);
        Ok(())
    });
    if let Err(error) = made {
        let text = error.to_string();
        assert!(matches!(error, Error::Limit { .. }), "{text}");
        assert!(text.contains("max_storage_buffers_per_shader_stage") && text.contains("8"), "{text}");
    }
    host.expect_no_complaints();
}

/// Each stands half way through a step while the others run; one is dropped there, one cancelled and started anew, and
/// memory is used again.
#[test]
fn two_sessions_do_not_meet() {
    let host = Host::full();
    let model = host.model();
    let (want_a, want_b) = (sampled(&model, 3, 1), sampled(&model, 8, 2));
    let mut a = host.session(&model, Some(0.05));
    let mut b = host.session(&model, Some(0.05));
    a.start(&request(3, 1)).unwrap();
    b.start(&request(8, 2)).unwrap();
    let mut dropped = host.session(&model, Some(0.05));
    dropped.start(&request(1, 3)).unwrap();
    let mut dropped = Some(dropped);
    let mut cancelled = host.session(&model, Some(0.05));
    cancelled.start(&request(2, 4)).unwrap();
    let mut calls = 0;
    while !(a.progress().finished && b.progress().finished) {
        let mut encoder = host.encoder();
        a.step(&mut encoder).unwrap();
        cancelled.step(&mut encoder).unwrap();
        if let Some(dropped) = &mut dropped {
            dropped.step(&mut encoder).unwrap();
        }
        b.step(&mut encoder).unwrap();
        a.step(&mut encoder).unwrap();
        if calls == 40 {
            // Before the encoder that holds its commands is submitted.
            dropped = None;
            assert!(!cancelled.progress().finished);
            cancelled.cancel();
        }
        if calls == 45 {
            cancelled.start(&request(3, 1)).unwrap();
        }
        host.queue.submit([encoder.finish()]);
        host.wait();
        calls += 1;
    }
    assert!(calls > 45 && dropped.is_none(), "{calls} calls");
    assert_eq!(host.finish(&mut cancelled).pixels, want_a.pixels);
    assert_eq!(host.picture(&a).pixels, want_a.pixels);
    assert_eq!(host.picture(&b).pixels, want_b.pixels);
    host.expect_no_complaints();
}

#[test]
fn a_cancelled_or_replaced_request_leaves_no_trace() {
    let host = Host::full();
    let model = host.model();
    let mut session = host.session(&model, Some(0.05));
    for calls in [0, 1, 30] {
        session.start(&request(1, 9)).unwrap();
        let mut encoder = host.encoder();
        for _ in 0..calls {
            session.step(&mut encoder).unwrap();
        }
        if calls == 1 {
            session.cancel();
            assert_eq!(session.progress().steps, 0);
        }
        // A request in place of another, in the same encoder.
        session.start(&request(7, 1)).unwrap();
        session.step(&mut encoder).unwrap();
        host.queue.submit([encoder.finish()]);
        assert_eq!(host.finish(&mut session).pixels, sampled(&model, 7, 1).pixels);
    }
    // An encoder that is never submitted: what was in it is lost, and nothing else.
    session.start(&request(1, 9)).unwrap();
    let mut encoder = host.encoder();
    session.step(&mut encoder).unwrap();
    let later = session.read(&mut encoder, Show::Picture).unwrap();
    drop(encoder);
    let error = pollster::block_on(later).unwrap_err();
    assert!(error.to_string().contains("never submitted"), "{error}");
    session.start(&request(7, 1)).unwrap();
    assert_eq!(host.finish(&mut session).pixels, sampled(&model, 7, 1).pixels);
    host.expect_no_complaints();
}

#[test]
fn a_thousand_starts_leave_nothing_behind() {
    let host = Host::full();
    let model = host.model();
    let mut session = host.session(&model, Some(1.0));
    let texture = host.texture([16, 16], TextureFormat::Rgba8Unorm, TextureUsages::STORAGE_BINDING);
    let view = texture.create_view(&Default::default());
    // Buffers, textures and bind groups that live, as wgpu counts them.
    let alive = || {
        host.wait();
        let report = host.instance.generate_report().expect("wgpu's own backend");
        let hub = report.hub_report();
        [&hub.buffers, &hub.bind_groups, &hub.textures, &hub.compute_pipelines, &hub.command_encoders]
            .map(|kind| kind.num_allocated)
    };
    let mut baseline = None;
    for start in 0..1000u64 {
        session.start(&request((start % 10) as u32, start)).unwrap();
        let mut encoder = host.encoder();
        for _ in 0..start % 4 {
            session.step(&mut encoder).unwrap();
        }
        session.render_to(&mut encoder, &view).unwrap();
        if start % 50 == 0 {
            let later = session.read(&mut encoder, Show::Picture).unwrap();
            if start % 100 == 0 {
                drop(later);
            }
        }
        if start % 7 == 0 {
            drop(encoder);
        } else {
            host.queue.submit([encoder.finish()]);
        }
        if start % 8 == 0 {
            host.wait();
        }
        if start == 20 {
            baseline = Some(alive());
        }
    }
    assert_eq!(Some(alive()), baseline);
    // A session takes all it had with it.
    let before = alive();
    let other = host.session(&model, Some(1.0));
    assert!(alive() > before);
    drop(other);
    assert_eq!(alive(), before);
    host.expect_no_complaints();
}
