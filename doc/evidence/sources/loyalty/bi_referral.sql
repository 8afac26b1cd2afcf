select * from loyalty.bi_referral
