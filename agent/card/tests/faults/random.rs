//! Any image on a card with any faults: what is called verified equals the image, what failed has no first block.

use cardshop_card::probe;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Case {
    size: u64,
    /// State of each granule: 0 don't care, 1 must be zero, 2 data, 3 data that is zero.
    granules: Vec<u8>,
    wipe: Wipe,
    alignment: usize,
    plan: FaultPlan,
    /// The card holds the image but for a few bytes at these offsets, and is refreshed.
    refresh: Option<Vec<u64>>,
}

fn cases() -> impl Strategy<Value = Case> {
    let size = MIB..3 * MIB;
    let wipe = prop_oneof![Just(Wipe::None), Just(Wipe::Zero), Just(Wipe::Discard)];
    let offset = || proptest::option::weighted(0.3, 0..4 * MIB);
    let plan = (
        (offset(), offset(), proptest::option::of(512_usize..40_000), offset()),
        (
            proptest::option::weighted(0.2, 0_u64..200),
            any::<bool>(),
            proptest::option::weighted(0.1, 0..4 * MIB),
        ),
        proptest::option::weighted(
            0.1,
            prop_oneof![Just(MIB), Just(2 * MIB), (256..1024_u64).prop_map(|n| n * 4096)],
        ),
    );
    let plan = plan.prop_map(|(faults, (removed_at_request, discards, full_at), real_size)| {
        let (io_error_at, flip_at, longest_transfer, drops_from) = faults;
        let plan = FaultPlan { io_error_at, flip_at, longest_transfer, drops_from, ..FaultPlan::default() };
        FaultPlan { removed_at_request, discards, full_at, real_size, ..plan }
    });
    // Stretches of granules in one state, as file systems have them.
    let granules = proptest::collection::vec((0_u8..4, 1_usize..100), 1..40).prop_map(|runs| {
        runs.into_iter().flat_map(|(state, count)| std::iter::repeat_n(state, count)).collect()
    });
    let refresh = proptest::option::of(proptest::collection::vec(0..MIB, 0..6));
    (size, granules, wipe, prop_oneof![Just(512_usize), Just(4096)], plan, refresh).prop_map(
        |(size, granules, wipe, alignment, plan, refresh)| Case {
            size,
            granules,
            wipe,
            alignment,
            plan,
            refresh,
        },
    )
}

impl Case {
    fn image(&self) -> Image {
        let mut extents: Vec<Extent> = Vec::new();
        let mut zero_data = Vec::new();
        for (number, state) in self.granules.iter().enumerate().take(self.size.div_ceil(4096) as usize) {
            let offset = number as u64 * 4096;
            let length = 4096.min(self.size - offset);
            let kind = match state {
                0 => continue,
                1 => ExtentKind::Zero,
                _ => ExtentKind::Data,
            };
            if *state == 3 {
                zero_data.push(offset);
            }
            extents.push(Extent { offset, length, kind });
        }
        Image::new(self.size, extents, Vec::new(), &zero_data)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn verified_implies_equal_and_failed_implies_no_first_block(case in cases()) {
        let image = case.image();
        let card = match &case.refresh {
            None => used_card(4 * MIB, case.alignment, case.plan.clone()),
            Some(changed) => {
                let mut bytes = noise(7, 4 * MIB as usize);
                bytes[..image.bytes.len()].copy_from_slice(&image.bytes);
                changed.iter().for_each(|at| bytes[*at as usize] ^= 0x11);
                MemoryCard::new(bytes, case.alignment, case.plan.clone())
            }
        };
        // The probe finds memory that wraps around; the read-back must find every fault alone.
        if case.plan.real_size.is_some() {
            prop_assert!(probe(&mut card.claim(), &StopFlag::new()).is_err());
        }
        let before = card.bytes();
        let job = Job { wipe: case.wipe, ..image.job() };
        let result = match case.refresh {
            None => write(&card, &job),
            Some(_) => refresh_card(&mut card.claim(), &job, &StopFlag::new(), &mut |_| ()),
        };
        match result {
            Ok(outcome) => {
                prop_assert_eq!(outcome.is_verified(), !image.index.extents().is_empty());
                prop_assert_eq!(image.difference(&card.bytes()), None);
                prop_assert_eq!(outcome.verified_bytes, image.index.data_bytes() + image.index.zero_bytes());
            }
            Err(error) => {
                let bytes = card.bytes();
                // A card that stores another byte there, or fails there, cannot be cleared there.
                let lies = |at: Option<u64>| at.is_some_and(|at| at < 512);
                let excused = matches!(error, CardError::NotInvalidated { .. })
                    || case.plan.real_size.is_some() || lies(case.plan.flip_at) || lies(case.plan.io_error_at) || lies(case.plan.drops_from);
                prop_assert!(excused || bytes[..512].iter().all(|b| *b == 0) || bytes == before, "{error}");
            }
        }
    }
}
