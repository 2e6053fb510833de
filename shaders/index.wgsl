// Where an invocation stands. Library file.
//
// A dispatch over more than 65535 workgroups is spread over y; the tail is cut by the caller's bound.

fn linear_group(wid: vec3<u32>, groups: vec3<u32>) -> u32 {
    return wid.y * groups.x + wid.x;
}

fn linear_index(wid: vec3<u32>, groups: vec3<u32>, size: u32, lane: u32) -> u32 {
    return linear_group(wid, groups) * size + lane;
}
