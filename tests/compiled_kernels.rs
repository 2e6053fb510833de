//! What a program keeps of a driver's compiler between its runs.

use freeguide::gpu::{DeviceChoice, Gpu};
use freeguide::ops;
use freeguide::tensor::Context;

fn twice_three(gpu: &Gpu) -> f32 {
    let mut cx = Context::new(gpu);
    let x = cx.constant_f32("x", &[4], &[3.0; 4]).unwrap();
    let y = ops::scale(&mut cx, &x, 2.0).unwrap();
    cx.keep(&y);
    let plan = cx.finish("scale").unwrap();
    plan.run().unwrap();
    let bytes = gpu.read(plan.kept(y.storage()).unwrap(), 0..4).unwrap();
    bytemuck::pod_read_unaligned(&bytes)
}

#[test]
fn compiled_kernels_serve_another_device_and_damaged_ones_do_no_harm() {
    let open = || Gpu::new_blocking(&DeviceChoice::Auto).unwrap();
    let first = open();
    if first.pipelines_key().is_none() {
        assert!(first.compiled_pipelines().is_none());
        return;
    }
    unsafe { first.use_compiled_pipelines(None) }.unwrap();
    assert_eq!(twice_three(&first), 6.0);
    assert_eq!(first.pipeline_count(), 1);
    let bytes = first.compiled_pipelines().unwrap();

    let second = open();
    unsafe { second.use_compiled_pipelines(Some(&bytes)) }.unwrap();
    assert_eq!(twice_three(&second), 6.0);

    let last = bytes.len() - 1;
    let mut flipped = bytes.clone();
    flipped[last] ^= 1;
    for damaged in [&flipped[..], &bytes[..last], &bytes[..5], b""] {
        let gpu = open();
        let error = unsafe { gpu.use_compiled_pipelines(Some(damaged)) }.unwrap_err();
        assert!(error.to_string().contains("compiled kernels"), "{error}");
        assert_eq!(twice_three(&gpu), 6.0);
    }
}
