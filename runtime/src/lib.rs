//! Loads an artifact and runs it: devices, executor, training driver and data; alexrun
