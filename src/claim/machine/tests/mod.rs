mod judge;
mod properties;
mod world;
