-- title: Stores
-- chapter: Sales
-- about: Sales by store, the part that members (not guests) bring, and what comes back.
-- view: bi_store
-- column: store text Store
-- column: member_amount money Members
-- column: guest_amount money Guests
-- column: purchases count Purchases
-- column: members count Members who bought
-- column: average_order money Average order
-- column: return_rate percent Returned
-- chart: bars x=store y=member_amount,guest_amount stack=yes horizontal=yes
SELECT coalesce(store, '(none)') AS store, amount - guest_amount AS member_amount, guest_amount, purchases, members, average_order, round(returned / nullif(amount, 0), 4) AS return_rate
FROM loyalty.bi_store WHERE program_id = :program ORDER BY amount DESC, 1
