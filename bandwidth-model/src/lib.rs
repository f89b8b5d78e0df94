//! How many links of a video class a relay carries.
