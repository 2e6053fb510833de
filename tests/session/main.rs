//! A session in a host's program, on the host's own device: the embedded model, textures, lost devices, leaks.

mod host;
mod requests;
mod textures;
