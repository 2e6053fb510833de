// How a conditional and an unconditional prediction become one: classifier-free guidance. A library: no entry point; it declares
// binding 4. Its twin for a rule of the caller's, rule_expression.wgsl, takes the place of its import.
// strength [1]: w, so a = 1 + w, b = -w; or, `rows` set, [N, 4]: a, b and the dynamic threshold s of each sample.

@group(0) @binding(4) var<storage, read> strength: array<f32>;

// (a, b, s).
alias Rule = vec3<f32>;

// The rule of sample n at step t.
fn rule_of(n: u32, rows: u32, t: u32) -> Rule {
    if (rows != 0u) {
        return vec3<f32>(strength[n * 4u], strength[n * 4u + 1u], strength[n * 4u + 2u]);
    }
    return vec3<f32>(1.0 + strength[0], -strength[0], 1.0);
}

fn threshold_of(rule: Rule) -> f32 {
    return rule.z;
}

// What becomes of the predictions c and u at a place of z, and at four of them.
fn combined_one(rule: Rule, c: f32, u: f32, z: f32) -> f32 {
    return rule.x * c + rule.y * u;
}

fn combined_four(rule: Rule, c: vec4<f32>, u: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    return rule.x * c + rule.y * u;
}
