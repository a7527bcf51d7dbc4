//! The field of 256 elements with the polynomial x^8 + x^4 + x^3 + x + 1 (FIPS 197 §4).
//!
//! Without tables and branches: how long it takes says nothing about the numbers.

/// The sum, and the difference.
pub(super) const fn add(a: u8, b: u8) -> u8 {
    a ^ b
}

/// The product.
pub(super) const fn mul(a: u8, b: u8) -> u8 {
    let (mut a, mut product, mut bit) = (a, 0, 0);
    while bit < 8 {
        product ^= a & ((b >> bit) & 1).wrapping_neg();
        a = (a << 1) ^ (0x1b & (a >> 7).wrapping_neg());
        bit += 1;
    }
    product
}

/// One divided by `a`; 0 for 0. It is a^254.
pub(super) const fn inverse(a: u8) -> u8 {
    let (mut power, mut product, mut step) = (a, 1, 0);
    // 254 is 2 + 4 + … + 128.
    while step < 7 {
        power = mul(power, power);
        product = mul(product, power);
        step += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: polynomials over two elements, divided with remainder.
    fn plain(a: u8, b: u8) -> u8 {
        let mut product: u16 = 0;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11b << (bit - 8);
            }
        }
        u8::try_from(product).unwrap()
    }

    #[test]
    fn all_products_are_those_of_the_definition() {
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                assert_eq!(mul(a, b), plain(a, b), "{a} {b}");
            }
        }
        // FIPS 197 §4.2.
        assert_eq!(mul(0x57, 0x83), 0xc1);
    }

    #[test]
    fn every_element_but_zero_has_one_inverse() {
        assert_eq!(inverse(0), 0);
        for a in 1..=u8::MAX {
            assert_eq!(mul(a, inverse(a)), 1, "{a}");
        }
    }

    #[test]
    fn it_is_a_field() {
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                assert_eq!(mul(a, b), mul(b, a));
                for c in [0, 1, 2, 3, 0x53, 0x80, 0xca, 0xff] {
                    assert_eq!(mul(a, add(b, c)), add(mul(a, b), mul(a, c)));
                    assert_eq!(mul(mul(a, b), c), mul(a, mul(b, c)));
                }
            }
        }
    }
}
