mod claiming;
mod evidence;
mod judge;
mod ownership;
mod properties;
mod standby;
mod table;
mod world;
