select * from loyalty.bi_coupon
