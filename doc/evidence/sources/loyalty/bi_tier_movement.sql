select * from loyalty.bi_tier_movement
