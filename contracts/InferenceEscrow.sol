// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {AccessControlDefaultAdminRules} from "@openzeppelin/contracts/access/extensions/AccessControlDefaultAdminRules.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {BatchSettlement} from "./escrow/BatchSettlement.sol";
import {EscrowLedger} from "./escrow/EscrowLedger.sol";
import {PaymentChannels} from "./escrow/PaymentChannels.sol";
import {RequestEscrows} from "./escrow/RequestEscrows.sol";
import {IInferenceEscrow} from "./IInferenceEscrow.sol";

/**
 * @title InferenceEscrow
 * @notice See {IInferenceEscrow} and the interfaces it is made of for what each function promises.
 *
 * One token, fixed at deployment; no proxy. {EscrowLedger} keeps the books; {RequestEscrows}, {PaymentChannels} and
 * {BatchSettlement} are the three ways in which a deposit is spent. Tokens that are sent here without a call belong to
 * nobody and stay.
 *
 * IMPORTANT: Not for tokens whose balances change by themselves.
 */
contract InferenceEscrow is IInferenceEscrow, RequestEscrows, PaymentChannels, BatchSettlement {
    constructor(
        IERC20 token_,
        uint48 adminDelay,
        address admin,
        address settler,
        address pauser,
        address treasurer,
        uint16 feeBps_,
        uint256 releaseCapPerDay_
    )
        EscrowLedger(token_, settler, pauser, treasurer, feeBps_, releaseCapPerDay_)
        AccessControlDefaultAdminRules(adminDelay, admin)
        EIP712("Far Mesh Escrow", "1")
    {}
}
