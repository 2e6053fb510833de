// A picture of a sampler as colours: x [H, W, C] f32 in [-1, 1], C of 1 is grey, of 3 or more the first three are RGB.
// draw: a fragment over the whole target, whatever its size; the picture keeps its proportions in the middle, with black around
// it, or with `stretch` fills all of it; store: into a texture of the format written below, which the
// host puts in place of `rgba8unorm`.  Values are sRGB-encoded, as those of image files; `linear_light` decodes them, for
// targets that encode by themselves or hold linear light.  `smooth_pixels`: bilinear, else the nearest pixel.

struct Params {
    height: u32,
    width: u32,
    channels: u32,
    target_width: u32, // of what a fragment is drawn into
    target_height: u32,
}

override linear_light: bool = false;
override smooth_pixels: bool = false;
override stretch: bool = false;

@group(0) @binding(0) var<storage, read> x: array<f32>; // [H, W, C]
@group(0) @binding(1) var<uniform> p: Params;
@group(0) @binding(2) var stored: texture_storage_2d<rgba8unorm, write>;

fn pixel(column: i32, row: i32) -> vec3<f32> {
    let at = clamp(vec2<i32>(column, row), vec2<i32>(0), vec2<i32>(i32(p.width), i32(p.height)) - 1);
    let first = (u32(at.y) * p.width + u32(at.x)) * p.channels;
    let last = p.channels - 1u;
    let value = vec3<f32>(x[first], x[first + min(1u, last)], x[first + min(2u, last)]);
    return clamp(value * 0.5 + 0.5, vec3<f32>(0.0), vec3<f32>(1.0));
}

// Where in the picture a place of the target lies, which is `size` texels large; outside of 0 to 1 there is none.
fn within(place: vec2<f32>, size: vec2<f32>) -> vec2<f32> {
    let own = vec2<f32>(f32(p.width), f32(p.height));
    let covered = own * min(size.x / own.x, size.y / own.y);
    // A side that is covered is left as it is: rounding would move its texels.
    return select((place - 0.5) * size / covered + 0.5, place, covered + 0.5 > size);
}

// The colour at a place of a target of `size`, (0, 0) the upper left corner and (1, 1) the lower right one.
fn colour(place: vec2<f32>, size: vec2<f32>) -> vec4<f32> {
    var inside = place;
    if (!stretch) {
        inside = within(place, size);
        if (any(inside < vec2<f32>(0.0)) || any(inside > vec2<f32>(1.0))) {
            return vec4<f32>(0.0, 0.0, 0.0, 1.0);
        }
    }
    let at = inside * vec2<f32>(f32(p.width), f32(p.height));
    var encoded: vec3<f32>;
    if (smooth_pixels) {
        let corner = floor(at - 0.5);
        let part = at - 0.5 - corner;
        let column = i32(corner.x);
        let row = i32(corner.y);
        let above = mix(pixel(column, row), pixel(column + 1, row), part.x);
        let below = mix(pixel(column, row + 1), pixel(column + 1, row + 1), part.x);
        encoded = mix(above, below, part.y);
    } else {
        encoded = pixel(i32(floor(at.x)), i32(floor(at.y)));
    }
    if (!linear_light) {
        return vec4<f32>(encoded, 1.0);
    }
    // IEC 61966-2-1.
    let low = encoded / 12.92;
    let high = pow((encoded + 0.055) / 1.055, vec3<f32>(2.4));
    return vec4<f32>(select(high, low, encoded <= vec3<f32>(0.04045)), 1.0);
}

struct Corner {
    @builtin(position) position: vec4<f32>,
    @location(0) place: vec2<f32>,
}

// One triangle that covers the target.
@vertex
fn corners(@builtin(vertex_index) i: u32) -> Corner {
    let place = vec2<f32>(f32((i << 1u) & 2u), f32(i & 2u));
    return Corner(vec4<f32>(place.x * 2.0 - 1.0, 1.0 - place.y * 2.0, 0.0, 1.0), place);
}

@fragment
fn draw(corner: Corner) -> @location(0) vec4<f32> {
    return colour(corner.place, vec2<f32>(f32(p.target_width), f32(p.target_height)));
}

@compute @workgroup_size(8, 8)
fn store(@builtin(global_invocation_id) id: vec3<u32>) {
    let size = textureDimensions(stored);
    if (id.x < size.x && id.y < size.y) {
        let whole = vec2<f32>(size);
        textureStore(stored, id.xy, colour((vec2<f32>(id.xy) + 0.5) / whole, whole));
    }
}
