//! Prime numbers by the sieve of Eratosthenes.

/// All primes below `end`.
pub fn below(end: usize) -> Vec<usize> {
    let mut composite = vec![false; end];
    let mut primes = Vec::new();
    for n in 2..end {
        if composite[n] {
            continue;
        }
        primes.push(n);
        for multiple in (n * n..end).step_by(n) {
            composite[multiple] = true;
        }
    }
    primes
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn small() {
        assert_eq!(below(12), [2, 3, 5, 7, 11]);
        assert!(below(2).is_empty());
    }

    #[test]
    fn as_many_as_known() {
        assert_eq!(below(100_000).len(), 9592);
    }
}
