//! Keys whose private half everybody knows: in standards, in test suites, or small enough to be tried.
//!
//! By the first 16 octets of x, so that a key and its negative are both found. Made with an independent library from
//! the private numbers that are named.

/// P-256: private numbers 1 to 16, and keys printed in RFC 6979 §A.2.5, RFC 7515 §A.3, RFC 7517 §A.2, RFC 5903 §8.1 and
/// RFC 8291 §5.
pub(super) const P256: &[&str] = &[
    "6b17d1f2e12c4247f8bce6e563a440f2",
    "7cf27b188d034f7e8a52380304b51ac3",
    "5ecbe4d1a6330a44c8f7ef951d4bf165",
    "e2534a3532d08fbba02dde659ee62bd0",
    "51590b7a515140d2d784c85608668fdf",
    "b01a172a76a4602c92d3242cb897dde3",
    "8e533b6fa0bf7b4625bb30667c01fb60",
    "62d9779dbee9b0534042742d3ab54cad",
    "ea68d7b6fedf0b71878938d51d71f872",
    "cef66d6b2a3a993e591214d1ea223fb5",
    "3ed113b7883b4c590638379db0c21cda",
    "741dd5bda817d95e4626537320e5d551",
    "177c837ae0ac495a61805df2d85ee2fc",
    "54e77a001c3862b97a76647f4336df3c",
    "f0454dc6971abae7adfb378999888265",
    "76a94d138a6b41858b821c629836315f",
    "60fed4ba255a9d31c961eb74c6356d68",
    "7fcdce2770f6c45d4183cbee6fdb4b7b",
    "30a0424cd21c2944838a2d75c92b37e7",
    "dad0b65394221cf9b051e1feca5787d0",
    "d12dfb5289c8d4f81208b70270398c34",
    "2571b2becdfde360551aaf1ed0f4cd36",
];

/// P-384: private numbers 1 to 16, and keys printed in RFC 6979 §A.2.6 and RFC 5903 §8.2.
pub(super) const P384: &[&str] = &[
    "aa87ca22be8b05378eb1c71ef320ad74",
    "08d999057ba3d2d969260045c55b97f0",
    "077a41d4606ffa1464793c7e5fdc7d98",
    "138251cd52ac9298c1c8aad977321deb",
    "11de24a2c251c777573cac5ea025e467",
    "627be1acd064d2b2226fe0d26f2d15d3",
    "283c1d7365ce4788f29f8ebf234edffe",
    "1692778ea596e0be75114297a6fa3834",
    "8f0a39a4049bcb3ef1bf29b8b025b78f",
    "a669c5563bd67eec678d29d6ef4fde86",
    "099056e27da7b998da1eeec2904816c5",
    "952a7a349bd49289ab3ac421dcf683d0",
    "a567ba97b67aea5bafdaf5002ffcc6ab",
    "e8c8f94d44fbc2396bbeac481b89d2b0",
    "b3d13fc8b32b01058cc15c11d8135255",
    "d5d89c3b5282369c5fbd88e2b231511a",
    "ec3a4e415b4e19a4568618029f427fa5",
    "667842d7d180ac2cde6f74f37551f557",
    "e558dbef53eecde3d3fccfc1aea08a89",
];
