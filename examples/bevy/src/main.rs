//! A sprite whose image forms while it turns. Keys: 0 to 9 the class, up and down the guidance weight, space another seed.

use bevy::prelude::*;
use bevy::render::render_resource::TextureFormat;
use freeguide_bevy::{FreeguidePlugin, Picture};

/// Pixels of the image; the digits have 8.
const SIDE: u32 = 64;

fn main() {
    App::new()
        .add_plugins(DefaultPlugins.set(ImagePlugin::default_nearest()))
        .add_plugins(FreeguidePlugin { budget_ms: 8.0 })
        .add_systems(Startup, set_up)
        .add_systems(Update, (listen, turn))
        .run();
}

fn set_up(mut commands: Commands, mut images: ResMut<Assets<Image>>) {
    let image = images.add(Image::new_target_texture(SIDE, SIDE, TextureFormat::Rgba8UnormSrgb, None));
    commands.spawn(Camera2d);
    commands.spawn((
        Sprite { image: image.clone(), custom_size: Some(Vec2::splat(400.0)), ..default() },
        Transform::default(),
    ));
    commands.insert_resource(Picture { image, class: Some(7), weight: 2.0, seed: 1 });
}

fn turn(time: Res<Time>, mut sprites: Query<&mut Transform, With<Sprite>>) {
    for mut transform in &mut sprites {
        transform.rotation = Quat::from_rotation_z(0.2 * time.elapsed_secs().sin());
    }
}

fn listen(keys: Res<ButtonInput<KeyCode>>, mut picture: ResMut<Picture>) {
    const DIGITS: [KeyCode; 10] = [
        KeyCode::Digit0,
        KeyCode::Digit1,
        KeyCode::Digit2,
        KeyCode::Digit3,
        KeyCode::Digit4,
        KeyCode::Digit5,
        KeyCode::Digit6,
        KeyCode::Digit7,
        KeyCode::Digit8,
        KeyCode::Digit9,
    ];
    for (class, key) in (0..).zip(DIGITS) {
        if keys.just_pressed(key) {
            picture.class = Some(class);
        }
    }
    if keys.just_pressed(KeyCode::ArrowUp) {
        picture.weight += 0.2;
    }
    if keys.just_pressed(KeyCode::ArrowDown) {
        picture.weight -= 0.2;
    }
    if keys.just_pressed(KeyCode::Space) {
        picture.seed += 1;
    }
}
