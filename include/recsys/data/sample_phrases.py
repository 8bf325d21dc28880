"""Words that the sample shop's products and comments are made of."""

from typing import Final

# category, (what the products are called, what they promise)
CATEGORIES: Final = (
    ("Sữa rửa mặt", ("Sạch Sâu", "Dịu Nhẹ", "Kiềm Dầu", "Ngừa Mụn", "Tràm Trà", "Tạo Bọt")),
    ("Nước tẩy trang", ("Tươi Mát", "Cho Da Nhạy Cảm", "Bí Đao", "Hoa Hồng", "Hai Lớp")),
    ("Kem chống nắng", ("SPF50+ PA++++", "Kiểm Soát Dầu", "Nâng Tông", "Dưỡng Ẩm", "Vật Lý")),
    ("Serum", ("Vitamin C 15%", "Niacinamide 10%", "Hyaluronic Acid", "Retinol 0.5%", "B5")),
    ("Kem dưỡng ẩm", ("Phục Hồi Da", "Rau Má", "Ceramide", "Ban Đêm", "Dạng Gel")),
    ("Nước hoa hồng", ("Không Mùi", "Rau Má", "Trà Xanh", "Cân Bằng", "BHA 2%")),
    ("Mặt nạ", ("Đất Sét", "Ngủ Môi", "Cấp Ẩm", "Trà Xanh", "Collagen")),
    ("Son môi", ("Đỏ Gạch", "Hồng Đất", "Cam Cháy", "Nude", "Đỏ Rượu")),
    ("Phấn nước", ("Che Phủ Cao", "Kiềm Dầu", "Căng Bóng", "Tone Sáng", "Lâu Trôi")),
    ("Dầu gội", ("Bưởi", "Ngừa Gàu", "Phục Hồi Hư Tổn", "Ngăn Rụng", "Hương Nước Hoa")),
    ("Sữa tắm", ("Hương Hoa", "Trắng Da", "Muối Biển", "Dịu Nhẹ", "Yến Mạch")),
    ("Tẩy tế bào chết", ("Cà Phê", "AHA 8%", "Muối Hồng", "Đường Nâu", "Cho Môi")),
)  # fmt: skip

BRANDS: Final = (
    "Cocoon", "Klairs", "Cosrx", "Bioderma", "La Roche-Posay", "CeraVe", "Simple", "Senka",
    "Hada Labo", "Sunplay", "Anessa", "Innisfree", "Garnier", "L'Oreal", "Maybelline", "Vaseline",
    "Cetaphil", "Thorakao", "Skin1004", "Some By Mi", "Vichy", "Nivea", "Bio-Oil", "Lemonade",
)  # fmt: skip

SIZES: Final = ("50ml", "100ml", "150ml", "200ml", "400ml", "500ml")

SKINS: Final = ("Cho Da Dầu", "Cho Da Khô", "Cho Da Nhạy Cảm", "Cho Mọi Loại Da", "Cho Da Mụn")

DESCRIPTION: Final = (
    "{category} {brand} {promise} {skin} giúp làm sạch, cấp ẩm và nuôi dưỡng. "
    "Thành phần lành tính, không gây kích ứng, kết cấu mỏng nhẹ thấm nhanh. Thương hiệu {brand}."
)

GOOD_OPENINGS: Final = (
    "Sản phẩm rất tốt", "Mình rất thích em này", "Dùng ổn lắm", "Sp oke nha mn", "Hàng chính hãng",
    "Xài thích cực", "Chất lượng tuyệt vời", "Đáng đồng tiền", "Mua lần thứ {n} rồi", "Tuyệt vời",
    "Ok lắm shop ơi", "Da mình hợp em này", "Em này xịn", "Quá ưng luôn", "Sẽ ủng hộ shop dài dài",
    "Tốt hơn mong đợi", "Dùng {n} ngày đã thấy khác", "Rất hài lòng 😍", "san pham tot", "Thơm",
)  # fmt: skip
GOOD_DETAILS: Final = (
    "da mịn hẳn", "giảm mụn rõ", "thấm nhanh không bết", "mùi nhẹ nhàng", "không kích ứng",
    "dùng {n} tuần thấy sáng da", "lớp nền đẹp", "không bị khô da", "giao hàng nhanh",
    "đóng gói cẩn thận", "giá tốt so với chất lượng", "da dầu nên thử", "hợp da nhạy cảm",
    "đỡ đổ dầu", "mềm mượt", "rửa sạch mà ko khô", "hương thơm dễ chịu", "cấp ẩm tốt",
    "chai to dùng lâu", "date mới", "tone lên da rất xinh", "nhân viên tư vấn nhiệt tình",
    "mua {n} chai cho cả nhà", "được tặng quà nữa", "dùng sáng tối đều ổn",
)  # fmt: skip
GOOD_CLOSINGS: Final = (
    "", "sẽ mua lại", "cho shop 5 sao", "cảm ơn shop", "mn nên mua nha", "10 điểm", "❤️❤️",
    "recommend cho bạn bè", "đợt sale mua thêm {n} hộp", "hy vọng dùng lâu vẫn tốt", "👍",
    "giao trong {n} ngày", "chắc chắn quay lại", "quá rẻ", "iu shop",
)  # fmt: skip
BAD_OPENINGS: Final = (
    "Không hợp với mình", "Thất vọng", "Hàng ko giống mô tả", "Dùng bị kích ứng", "Quá tệ",
    "Mình thấy bình thường", "Không như kỳ vọng", "Chất lượng kém", "Da nổi mụn sau {n} ngày",
    "khong tot", "Giao sai hàng", "Không đáng tiền",
)  # fmt: skip
BAD_DETAILS: Final = (
    "da bị khô rát", "mùi khó chịu", "nổi mẩn đỏ", "chai bị chảy", "hộp móp", "giao chậm {n} ngày",
    "bết dính", "rửa không sạch", "trôi nhanh", "vón cục", "không thấy hiệu quả", "cay mắt",
)  # fmt: skip
BAD_CLOSINGS: Final = (
    "", "không mua lại", "cần xem lại", "phí tiền", "😡", "đã đổi trả", "mong shop cải thiện",
    "cho {n} sao thôi", "tiếc tiền", "buồn",
)  # fmt: skip
CAMPAIGN: Final = "Sản phẩm tốt, đóng gói đẹp, giao hàng nhanh, shop phục vụ rất chuyên nghiệp"
