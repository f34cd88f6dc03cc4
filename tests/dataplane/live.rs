//! From installation to removal, also through a kill.
