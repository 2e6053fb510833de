// The twin of rule_cfg.wgsl for a rule of the caller's: the text EXPRESSION below is replaced by WGSL of f32 before it is
// compiled. A library: no entry point; it declares binding 4.
// strength [T, 2] is the guiders' table: w, alpha, sigma, log_snr | progress, the factor of the result, ..

@group(0) @binding(4) var<storage, read> strength: array<vec4<f32>>;

struct Rule {
    step: vec4<f32>,
    more: vec4<f32>,
}

fn rule_of(n: u32, rows: u32, t: u32) -> Rule {
    return Rule(strength[t * 2u], strength[t * 2u + 1u]);
}

fn threshold_of(rule: Rule) -> f32 {
    return 1.0;
}

fn rule_expression(
    eps_c: f32, eps_u: f32, z: f32, w: f32, alpha: f32, sigma: f32, log_snr: f32, progress: f32,
) -> f32 {
    return f32(eps_c); // EXPRESSION
}

fn combined_one(rule: Rule, c: f32, u: f32, z: f32) -> f32 {
    let at = rule.step;
    return rule.more.y * rule_expression(c, u, z, at.x, at.y, at.z, at.w, rule.more.x);
}

fn combined_four(rule: Rule, c: vec4<f32>, u: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        combined_one(rule, c.x, u.x, z.x),
        combined_one(rule, c.y, u.y, z.y),
        combined_one(rule, c.z, u.z, z.z),
        combined_one(rule, c.w, u.w, z.w),
    );
}
